"""Folders: what is done is skipped, everything is recorded, failures are listed."""

from __future__ import annotations

import io
import json
import shutil
import sys

import pytest

from ovseg.cli.main import main


@pytest.fixture
def folder(predictor, photo, tmp_path):
    """Three copies of the photo in two levels."""
    path = tmp_path / "in"
    (path / "sub").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "sub/a.jpg"):
        shutil.copy(photo, path / name)
    return path


@pytest.fixture
def segment(folder, tmp_path, capsys):
    """Runs ``ovseg segment`` on the folder; gives the code, the printed names and stderr."""

    def run(*more, classes=("road",), inputs=(str(folder),)):
        out = ["--out", str(tmp_path / "out"), "--format", "npz", *more]
        code = main(["segment", *inputs, "--classes", *classes, *out])
        stdout, stderr = capsys.readouterr()
        return code, [line.split("out/")[-1] for line in stdout.splitlines()], stderr

    return run


def _manifest(tmp_path):
    return [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]


ALL = ["a.jpg.npz", "b.jpg.npz", "sub/a.jpg.npz"]


def test_manifest_says_what_was_done_and_how(segment, tmp_path):
    assert segment()[:2] == (0, ALL)
    head, *files = _manifest(tmp_path)
    assert head["settings"]["model"] == "maskclip_vit_tiny.emoji"
    assert head["settings"]["vocabulary"]["classes"][0]["name"] == "road"
    assert {"ovseg", "torch", "numpy", "Pillow"} <= set(head["versions"])
    assert [line["file"] for line in files] == ["a.jpg", "b.jpg", "sub/a.jpg"]
    assert all(line["run"] == head["run"] and line["formats"] == ["npz"] for line in files)


def test_resume_does_only_what_is_not_done(segment, folder, tmp_path, predictor):
    segment()
    predictor.opened = {}
    code, printed, stderr = segment("--resume")
    assert (code, printed) == (0, []) and "3 skipped" in stderr
    assert not predictor.opened, "no model is loaded where nothing is left to do"
    (tmp_path / "out" / "b.jpg.npz").unlink()
    shutil.copy(folder / "a.jpg", folder / "c.jpg")
    assert segment("--resume")[1] == ["b.jpg.npz", "c.jpg.npz"]


def test_resume_does_a_changed_file_again(segment, folder):
    segment()
    with (folder / "b.jpg").open("ab") as file:
        file.write(b"\0")
    assert segment("--resume")[1] == ["b.jpg.npz"]


@pytest.mark.parametrize(
    "change",
    [["--background", "none"], ["--model", "other"], ["--format", "npz,png"], ["--templates", "vild14"]],
)
def test_resume_does_all_again_with_other_settings(segment, change):
    segment()
    assert len(segment("--resume", *change)[1]) >= 3


def test_resume_does_all_again_with_other_classes(segment):
    segment()
    assert segment("--resume", classes=["road", "car"])[1] == ALL
    assert segment("--resume", classes=["road"])[1] == [], "the first run is still known"


def test_without_resume_all_is_done_again(segment):
    segment()
    assert segment()[1] == ALL


def test_failed_files_are_tried_again(segment, folder, tmp_path):
    data = (folder / "b.jpg").read_bytes()
    (folder / "b.jpg").write_bytes(data[:100])
    assert segment()[0] == 1
    assert "b.jpg" in _manifest(tmp_path)[2]["error"]
    assert segment("--resume")[:2] == (1, [])
    (folder / "b.jpg").write_bytes(data)
    assert segment("--resume")[:2] == (0, ["b.jpg.npz"])


def test_a_killed_process_leaves_a_manifest_that_goes_on(segment, tmp_path):
    segment()
    path = tmp_path / "out" / "manifest.jsonl"
    path.write_bytes(path.read_bytes()[:-30])  # in the middle of the last line
    assert segment("--resume")[1] == ["sub/a.jpg.npz"]
    assert segment("--resume")[1] == []


@pytest.mark.parametrize("damage", [b"\xff\xfe\0", b"[]\n1\nnull\n{}\n", b'{"run": 1, "file": []}\n'])
def test_a_damaged_manifest_is_no_error(segment, tmp_path, damage):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.jsonl").write_bytes(damage)
    assert segment("--resume")[:2] == (0, ALL)
    assert segment("--resume")[1] == []


def test_fail_fast_stops_at_the_first(segment, folder):
    (folder / "a.jpg").write_text("no image")
    code, printed, stderr = segment("--fail-fast")
    assert (code, printed) == (1, [])
    assert "0 done, 1 failed, 2 not tried" in stderr


def test_failures_are_listed_at_the_end(segment, folder):
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_text("no image")
    end = segment()[2].splitlines()[-4:]
    assert end[0] == "2 failed:" and "a.jpg" in end[1] and "b.jpg" in end[2]
    assert end[3].startswith("1 done, 2 failed")


@pytest.mark.parametrize("separator", ["\n", "\0"])
def test_a_list_on_stdin(segment, folder, monkeypatch, separator):
    monkeypatch.setattr(
        sys, "stdin", io.StringIO(separator.join(map(str, [folder / "a.jpg", folder / "b.jpg"])))
    )
    assert segment(inputs=["-"])[:2] == (0, ALL[:2])


def test_an_empty_list_on_stdin(segment, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    code, _, stderr = segment(inputs=["-"])
    assert code == 2 and "empty" in stderr


def test_a_manifest_that_cannot_be_written_is_one_warning(segment, tmp_path):
    (tmp_path / "out" / "manifest.jsonl").mkdir(parents=True)
    code, printed, stderr = segment()
    assert (code, printed) == (0, ALL)
    assert stderr.count("manifest.jsonl") == 1


def test_detect_resumes_too(folder, tmp_path, capsys):
    command = ["detect", str(folder), "--classes", "x", "--format", "yolo", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert main([*command, "--resume"]) == 0
    assert "3 skipped" in capsys.readouterr().err
