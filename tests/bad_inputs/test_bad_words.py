"""Words that are none, too many, or too many for a format."""

from __future__ import annotations

import pytest
from bad_words import WORD_FILES, WORDS

from ovseg.cli.main import main


@pytest.mark.parametrize("name", WORDS)
def test_words_that_are_none(predictor, photo, tmp_path, capsys, name):
    assert main(["segment", str(photo), "--out", str(tmp_path / "out"), "--classes", *WORDS[name]]) == 2
    stderr = capsys.readouterr().err.splitlines()[-1]
    assert stderr.startswith("ovseg segment: error: ") and len(stderr) > 40
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", WORD_FILES)
def test_word_files_that_are_none(predictor, photo, tmp_path, capsys, name):
    path = tmp_path / name
    path.write_bytes(WORD_FILES[name])
    assert main(["segment", str(photo), "--out", str(tmp_path / "out"), "--vocab", str(path)]) == 2
    assert "Traceback" not in (stderr := capsys.readouterr().err) and "error: " in stderr


def test_ten_thousand_words(predictor, photo, tmp_path, capsys):
    path = tmp_path / "many.txt"
    path.write_text("".join(f"thing number {i}\n" for i in range(10_000)))
    formats = ["--format", "overlay,png,npz,coco,labelme", "--out", str(tmp_path / "out")]
    assert main(["segment", str(photo), "--vocab", str(path), *formats]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_a_format_that_does_not_hold_so_many_fails_only_there(predictor, photo, tmp_path, capsys):
    classes = [f"thing {i}" for i in range(300)]
    out = ["--format", "png,voc", "--out", str(tmp_path / "out")]
    assert main(["segment", str(photo), "--classes", *classes, *out]) == 1
    stdout, stderr = capsys.readouterr()
    assert "labels.png" in stdout and "voc holds at most 254 classes" in stderr
