from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from ovseg.cli.main import main


def test_writes_overlay_and_labels_and_prints_their_paths(predictor, photo, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["segment", str(photo), "--classes", "road", "car", "--out", str(out)]) == 0
    stdout, stderr = capsys.readouterr()
    assert stdout.splitlines() == [str(out / "photo.jpg.overlay.png"), str(out / "photo.jpg.labels.png")]
    assert all((out / name).stat().st_size for name in ("photo.jpg.overlay.png", "photo.jpg.labels.png"))
    assert "1 done, 0 failed" in stderr


def test_names_each_bad_file_and_does_the_good_one(predictor, photo, tmp_path, capsys):
    data = photo.read_bytes()
    (tmp_path / "truncated.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no image")
    out = tmp_path / "out"
    assert main(["segment", str(tmp_path), "--classes", "road", "--out", str(out)]) == 1
    stdout, stderr = capsys.readouterr()
    assert [line.split("/")[-1] for line in stdout.splitlines()] == [
        "photo.jpg.overlay.png",
        "photo.jpg.labels.png",
    ]
    for name in ("truncated.jpg", "empty.jpg", "text.jpg"):
        assert any(line.startswith("failed: ") and name in line for line in stderr.splitlines()), name
    assert "1 done, 3 failed" in stderr
    assert "Traceback" not in stderr


def test_debug_shows_where_a_file_failed(predictor, photo, tmp_path, capsys):
    (tmp_path / "empty.jpg").touch()
    assert main(["segment", str(tmp_path), "--classes", "road", "--out", str(tmp_path / "o"), "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_outputs_keep_the_path_below_the_folder(predictor, photo, tmp_path):
    (tmp_path / "in" / "a").mkdir(parents=True)
    photo.rename(tmp_path / "in" / "a" / "photo.jpg")
    main(
        ["segment", str(tmp_path / "in"), "--classes", "x", "--out", str(tmp_path / "out"), "--format", "png"]
    )
    assert (tmp_path / "out" / "a" / "photo.jpg.labels.png").exists()
    assert not list((tmp_path / "out").rglob("*.overlay.png"))


def test_summary_gives_mean_areas(predictor, photo, tmp_path, capsys):
    main(["segment", str(photo), "--classes", "road", "car", "--out", str(tmp_path / "out")])
    rows = [line.split() for line in capsys.readouterr().err.splitlines()]
    assert ["██", "road", "50.0%"] in rows
    assert ["(unlabelled)", "50.0%"] in rows
    assert not any("car" in row for row in rows)


def test_a_file_of_classes(predictor, photo, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("road\nperson: man | woman\n")
    assert main(["segment", str(photo), "--vocab", str(words), "--out", str(tmp_path / "out")]) == 0
    assert predictor.vocabulary.names == ("road", "person")


def test_a_class_may_be_long(predictor, photo, tmp_path):
    name = "a " + "very " * 60 + "long name"
    assert main(["segment", str(photo), "--classes", name, "--out", str(tmp_path / "out")]) == 0
    assert predictor.vocabulary.names == (name,)


def test_options_reach_the_predictor(predictor, photo, tmp_path):
    options = (
        "--model some_model --device cpu --batch-size 3 --background floor=0.3 --templates vild14 --detail 2"
    )
    main(["segment", str(photo), "--classes", "x", "--out", str(tmp_path / "out"), *options.split()])
    assert predictor.opened == {"name": "some_model", "device": "cpu", "batch_size": 3}
    assert predictor.asked == {"background": "floor=0.3", "templates": "vild14", "detail": 2.0}


def test_method_on_tower(predictor, photo, tmp_path, capsys):
    options = ["--method", "maskclip", "--tower", "rn50.openai", "--out", str(tmp_path / "out")]
    assert main(["segment", str(photo), "--classes", "x", *options]) == 0
    assert (predictor.opened["method"], predictor.opened["tower"]) == ("maskclip", "rn50.openai")
    assert "drawings" not in capsys.readouterr().err


def test_default_model_says_what_it_cannot_do(predictor, photo, tmp_path, capsys):
    main(["segment", str(photo), "--classes", "x", "--out", str(tmp_path / "out")])
    assert predictor.opened["name"] == "maskclip_vit_tiny.emoji"
    assert "drawings, not photographs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        (["missing.jpg", "--classes", "road"], "missing.jpg"),
        (["{photo}", "--classes", "road", "{photo}"], "inputs come before --classes"),
        (["{photo}", "--classes", "road", "road"], "rename one"),
        (["{photo}", "--vocab", "ade15"], "ade150"),
        (["{photo}", "--classes", "road", "--method", "maskclip"], "both --method and --tower"),
        (["{photo}", "--classes", "road", "--activation", "gelu"], "goes with --tower"),
        (["{photo}", "--classes", "road", "--model", "m", "--method", "m", "--tower", "t"], "either --model"),
    ],
)
def test_wrong_use_is_code_2_and_names_the_cure(predictor, photo, capsys, arguments, cure):
    assert main(["segment", *(text.format(photo=photo) for text in arguments)]) == 2
    stdout, stderr = capsys.readouterr()
    assert cure in stderr.splitlines()[-1]
    assert not stdout
    assert not predictor.opened


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        (["--classes", "road"], "INPUT"),
        (["photo.jpg"], "--classes"),
        (["photo.jpg", "--classes", "road", "--vocab", "ade150"], "not allowed with"),
        (["photo.jpg", "--classes", "road", "--format", "overlay,gif"], "'gif' is not one of coco, "),
        (["photo.jpg", "--classes", "road", "--batch-size", "0"], "not 1 or more"),
        (["photo.jpg", "--classes", "road", "--background", "floor"], "floor=0.3"),
        (["photo.jpg", "--classes", "road", "--templates", "vild"], "vild14"),
    ],
)
def test_arguments_that_do_not_parse(capsys, arguments, cure):
    with pytest.raises(SystemExit) as stop:
        main(["segment", *arguments])
    assert stop.value.code == 2
    assert cure in capsys.readouterr().err


def test_output_that_cannot_be_written_fails_that_input(predictor, photo, tmp_path, capsys):
    out = tmp_path / "out"
    out.write_text("a file")
    assert main(["segment", str(photo), "--classes", "road", "--out", str(out)]) == 1
    stderr = capsys.readouterr().err
    assert f"failed: {photo}: cannot write" in stderr
    assert "0 done, 1 failed" in stderr


def test_warnings_are_one_line(predictor, photo, tmp_path, capsys):
    main(["segment", str(photo), "--classes", "a: x", "b: x", "--out", str(tmp_path / "out")])
    lines = [line for line in capsys.readouterr().err.splitlines() if "serves 2 classes" in line]
    assert lines and lines[0].startswith("warning: the word 'x'")


def test_all_formats_at_once(predictor, photo, tmp_path, capsys):
    formats = "overlay,png,coco,panoptic,npz,labelme,label_studio,instances,voc,yolo"
    assert (
        main(["segment", str(photo), "--classes", "x", "--format", formats, "--out", str(tmp_path / "out")])
        == 0
    )
    paths = capsys.readouterr().out.splitlines()
    assert len(paths) == 10
    (coco,) = [path for path in paths if path.endswith("coco.json")]
    assert [item["name"] for item in json.loads(Path(coco).read_text())["categories"]] == ["x"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are always text")
def test_a_name_that_is_not_utf8(predictor, photo, tmp_path):
    name = os.path.join(os.fsencode(tmp_path), b"caf\xe9.jpg")
    os.rename(photo, name)
    assert main(["segment", os.fsdecode(name), "--classes", "x", "--out", str(tmp_path / "out")]) == 0
    assert b"caf\xe9.jpg.overlay.png" in os.listdir(os.fsencode(tmp_path / "out"))
