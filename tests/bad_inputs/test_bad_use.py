"""Videos that are none, wrong arguments, outputs that cannot be written."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from bad_images import IMAGES, OTHER, encoded
from bad_weights import WEIGHTS
from bad_words import WORD_FILES, WORDS

from ovseg.cli.main import main


@pytest.mark.parametrize("name", [*OTHER, "cut_50.png"], ids=repr)
def test_videos_that_are_none(tmp_path, name):
    pytest.importorskip("av")
    from ovseg.inference.video_source import VideoError, open_video

    path = tmp_path / Path(name).with_suffix(".mp4").name
    path.write_bytes(IMAGES[name])
    try:
        frames = list(open_video(path))  # a picture is a video of one frame to FFmpeg
    except VideoError as error:
        assert path.name in str(error)
    else:
        assert len(frames) <= 1


_ARGUMENTS: dict[str, list[str]] = {
    "no_input": ["segment", "--classes", "x"],
    "no_classes": ["segment", "{photo}"],
    "both": ["segment", "{photo}", "--classes", "x", "--vocab", "ade150"],
    "missing": ["segment", "nowhere.png", "--classes", "x"],
    "empty_folder": ["segment", "{empty}", "--classes", "x"],
    "pattern": ["segment", "{empty}/*.png", "--classes", "x"],
    "nul": ["segment", "a\0b", "--classes", "x"],
    "list": ["segment", "{photo}", "--vocab", "ade15"],
    "list_file": ["segment", "{photo}", "--vocab", "nowhere.txt"],
    "list_folder": ["segment", "{photo}", "--vocab", "{empty}"],
    "format": ["segment", "{photo}", "--classes", "x", "--format", "gif"],
    "no_format": ["segment", "{photo}", "--classes", "x", "--format", ""],
    "background": ["segment", "{photo}", "--classes", "x", "--background", "perhaps"],
    "floor": ["segment", "{photo}", "--classes", "x", "--background", "floor=2"],
    "floor_text": ["segment", "{photo}", "--classes", "x", "--background", "floor=x"],
    "floor_nan": ["segment", "{photo}", "--classes", "x", "--background", "floor=nan"],
    "margin": ["segment", "{photo}", "--classes", "x", "--background", "margin"],
    "templates": ["segment", "{photo}", "--classes", "x", "--templates", "none"],
    "batch": ["segment", "{photo}", "--classes", "x", "--batch-size", "0"],
    "batch_text": ["segment", "{photo}", "--classes", "x", "--batch-size", "many"],
    "method_alone": ["segment", "{photo}", "--classes", "x", "--method", "maskclip"],
    "tower_alone": ["segment", "{photo}", "--classes", "x", "--tower", "vit_b16.openai"],
    "activation_alone": ["segment", "{photo}", "--classes", "x", "--activation", "gelu"],
    "activation": ["segment", "{photo}", "--classes", "x", "--activation", "relu"],
    "threshold": ["detect", "{photo}", "--classes", "x", "--threshold", "2"],
    "proposals": ["detect", "{photo}", "--classes", "x", "--proposals", "nowhere.npz"],
    "detect_format": ["detect", "{photo}", "--classes", "x", "--format", "png"],
    "detail": ["segment", "{photo}", "--classes", "x", "--detail", "0.5"],
    "detail_nan": ["segment", "{photo}", "--classes", "x", "--detail", "nan"],
    "detail_text": ["compare", "{photo}", "--classes", "x", "--detail", "much"],
    "bank": ["segment", "{photo}", "--vocab", "nowhere.safetensors"],
    "bank_and_classes": ["vocab", "build", "x", "--out", "bank.txt"],
    "two_models": ["vocab", "check", "x", "--model", "a", "--tower", "b"],
    "place": ["explain", "{photo}", "--at", "here"],
    "no_place": ["explain", "{photo}"],
    "method": ["compare", "{photo}", "--classes", "x", "--methods", "nobody"],
    "vocab": ["vocab", "show"],
    "action": ["vocab", "eat"],
    "models": ["models", "nobody*"],
    "command": ["eat"],
    "nothing": [],
}


@pytest.mark.parametrize("name", _ARGUMENTS)
def test_arguments_that_are_wrong(predictor, photo, tmp_path, capsys, name):
    (tmp_path / "empty").mkdir()
    arguments = [text.format(photo=photo, empty=tmp_path / "empty") for text in _ARGUMENTS[name]]
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    stdout, stderr = capsys.readouterr()
    assert code == 2 and not stdout
    assert "error: " in stderr and "Traceback" not in stderr


_TRIED = ["overlay", "png", "coco", "npz", "labelme", "yolo", "voc"]


@pytest.mark.parametrize("format", _TRIED)
@pytest.mark.parametrize("obstacle", ["file", "folder", "read_only"])
def test_outputs_that_cannot_be_written(predictor, photo, tmp_path, capsys, format, obstacle):
    from ovseg.inference.writers import output_path

    out = tmp_path / "out"
    target = output_path(out, "photo.png", format)
    if obstacle == "file":
        out.write_text("a file")
    elif obstacle == "folder":
        target.mkdir(parents=True)
    else:
        out.mkdir(mode=0o500)
        if os.access(out, os.W_OK):
            pytest.skip("root may write everywhere")
    code = main(["segment", str(photo), "--classes", "x", "--format", format, "--out", str(out)])
    stderr = capsys.readouterr().err
    assert code == 1 and "cannot write" in stderr and "Traceback" not in stderr
    assert not list(tmp_path.rglob(".ovseg-*"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits on file sizes")
@pytest.mark.parametrize("format", _TRIED)
def test_a_full_disk(predictor, tmp_path, capsys, format):
    import resource

    photo = tmp_path / "photo.png"
    photo.write_bytes(encoded("png", size=(400, 300)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        code = main(
            ["segment", str(photo), "--classes", "x", "--format", format, "--out", str(tmp_path / "out")]
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 1 and "cannot write" in capsys.readouterr().err
    left = [path.name for path in (tmp_path / "out").iterdir()]
    assert left in ([], ["manifest.jsonl"])


def test_there_are_enough_cases():
    tables = (IMAGES, WORDS, WORD_FILES, WEIGHTS, _ARGUMENTS)
    assert sum(map(len, tables)) + len(OTHER) + 3 * len(_TRIED) >= 200
