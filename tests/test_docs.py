"""What the pages for users tell them to type works. ``<!-- not run -->`` marks a block that is only parsed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from video_clips import make_clip

from ovseg.cli.main import _parser, main
from ovseg.inference.writers import list_writers, writer

_DOCS = Path(__file__).parents[1] / "docs"
_SCENES = _DOCS.parent / "ovseg" / "assets" / "demo"
_PAGES = ("start", "words", "folders_and_video", "large_images", "formats", "troubleshooting")


def _blocks(page: str) -> list[tuple[bool, str, str]]:
    """(whether to run it, language, code) of each block."""
    text = (_DOCS / f"{page}.md").read_text(encoding="utf-8")
    found = re.findall(r"(<!-- not run -->\n)?^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(not mark, language, code) for mark, language, code in found]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The files that the pages speak of."""
    scene = _SCENES / json.loads((_SCENES / "scenes.json").read_text(encoding="utf-8"))[0]["file"]
    shutil.copy(scene, tmp_path / "drawing.png")
    (tmp_path / "drawings").mkdir()
    shutil.copy(scene, tmp_path / "drawings")
    (tmp_path / "broken.png").write_text("no image")
    (tmp_path / "words.txt").write_text("house\nplant: tree | flower  # synonyms\n!sky\n")
    pytest.importorskip("av")
    make_clip(tmp_path / "clip.mp4", [i / 25 for i in range(6)])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", _PAGES)
def test_every_snippet_of(page, folder, capsys):
    names: dict = {}
    for run, language, code in _blocks(page):
        if language == "python":
            exec(compile(code, f"{page}.md", "exec"), names)
            continue
        for line in code.splitlines():
            words = shlex.split(line, comments=True)
            assert words[0] == "ovseg"
            if not run:
                _parser().parse_args(words[1:])
                continue
            code = main(words[1:])
            assert code == 0 or words[1] == "doctor", f"{line}: {capsys.readouterr().err}"
    assert capsys.readouterr().out


def test_pages_are_in_the_index():
    index = (_DOCS / "index.md").read_text(encoding="utf-8")
    assert all(f"({page}.md)" in index for page in _PAGES)


def test_formats_are_those_that_there_are():
    text = (_DOCS / "formats.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| `(\.[\w.]+)`", text, re.MULTILINE))
    assert rows == {name: writer(name).extension for name in list_writers()}
