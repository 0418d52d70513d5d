"""What README.md tells people to type works. A block after ``<!-- not run -->`` is only checked for its form."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

import ovseg
from ovseg.cli.main import _parser, main
from ovseg.methods.registry import list_models
from ovseg.towers.table import list_towers

_ROOT = Path(__file__).parents[1]
_README = (_ROOT / "README.md").read_text(encoding="utf-8")
_SCENES = _ROOT / "ovseg" / "assets" / "demo"


def _blocks(language: str, run: bool) -> list[str]:
    found = re.findall(rf"(<!-- not run -->\n)?^```{language}\n(.*?)^```", _README, re.MULTILINE | re.DOTALL)
    return [code for mark, code in found if bool(mark) != run]


def _commands(run: bool) -> list[list[str]]:
    lines = [line for block in _blocks("sh", run) for line in block.splitlines()]
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The files that the README speaks of."""
    path = tmp_path_factory.mktemp("readme")
    scene = _SCENES / json.loads((_SCENES / "scenes.json").read_text(encoding="utf-8"))[0]["file"]
    shutil.copy(scene, path / "drawing.png")
    (path / "drawings").mkdir()
    shutil.copy(scene, path / "drawings")
    (path / "broken.png").write_text("no image")
    return path


def test_python(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    blocks = _blocks("python", run=True)
    names: dict = {}
    for code in blocks:
        exec(compile(code, "README.md", "exec"), names)
    assert len(blocks) >= 2
    assert (folder / "drawing.overlay.png").exists()
    assert "broken.png is not an image" in capsys.readouterr().out


@pytest.mark.parametrize("command", _commands(run=True), ids=" ".join)
def test_command(folder, monkeypatch, capsys, command):
    monkeypatch.chdir(folder)
    assert command[0] == "ovseg"
    assert main(command[1:]) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("command", _commands(run=False), ids=" ".join)
def test_form_of_a_command_that_is_not_run(command):
    if command[0] == "ovseg":
        arguments = _parser().parse_args(command[1:])
        assert arguments.model in list_models()
    else:
        assert command[0] in ("make", "pip")
        assert command[0] != "make" or f"\n{command[1]}:" in (_ROOT / "Makefile").read_text()


def test_form_of_python_that_is_not_run():
    for code in _blocks("python", run=False):
        compile(code, "README.md", "exec")
        for method, tower in re.findall(r'ovseg\.build\("(.+?)", "(.+?)"', code):
            assert method in ovseg.list_methods()
            assert tower in list_towers() or "/" in tower


@pytest.mark.parametrize("page", ["README.md", *sorted(p.name for p in (_ROOT / "docs").glob("*.md"))])
def test_links_and_pictures_exist(page):
    path = _ROOT / page if page == "README.md" else _ROOT / "docs" / page
    targets = re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8"))
    missing = [t for t in targets if not t.startswith("http") and not (path.parent / t).exists()]
    assert not missing


def test_the_example_of_a_new_method_works(tiny_clip, photo):
    page = (_ROOT / "docs" / "adding_a_method.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names: dict = {}
    exec(compile(code, "adding_a_method.md", "exec"), names)
    method = names["ClearCLIP"]()
    model = method.build(tiny_clip.model, method.readout)
    predictor = ovseg.Predictor(model, tiny_clip, method.protocols["default"])
    assert predictor.segment(photo, ["cat", "dog"]).size == photo.shape[:2]


def test_suite_table_is_current(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(_ROOT / "tools"), *sys.path])
    from suite_table import with_suite

    assert with_suite(_README) == _README, "run: python tools/suite_table.py"
    assert "A demonstration and a regression test on drawings" in _README


def test_method_table_is_current(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(_ROOT / "tools"), *sys.path])
    from method_table import comparison, with_table

    page = (_ROOT / "docs" / "methods" / "index.md").read_text(encoding="utf-8")
    assert with_table(_README) == _README, "run: python tools/method_table.py"
    assert comparison() == page, "run: python tools/method_table.py"


def test_says_what_the_embedded_model_knows():
    assert re.search(r"knows drawings, not\s+photographs", _README)
