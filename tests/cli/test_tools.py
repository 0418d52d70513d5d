"""compare, explain, vocab, doctor: on the embedded tower."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest
from PIL import Image

import ovseg
from ovseg.cli import doctor
from ovseg.cli.main import main

SCENES = Path(ovseg.__file__).parent / "assets" / "demo"


@pytest.fixture
def scene() -> str:
    return str(SCENES / json.loads((SCENES / "scenes.json").read_text("utf-8"))[0]["file"])


def test_compare_lays_methods_out(scene, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    arguments = ["--methods", "clip", "maskclip", "--classes", "cow", "grass", "--out", str(out)]
    assert main(["compare", scene, *arguments]) == 0
    stdout, stderr = capsys.readouterr()
    assert stdout.split() == [str(out)]
    assert "clip: " in stderr and "maskclip: " in stderr and " s, " in stderr
    one, sheet = Image.open(scene).size, Image.open(out).size
    scale = min(max(max(one), 256), 640) / max(one)
    assert sheet[0] > 2 * one[0] * scale and sheet[1] > 2 * one[1] * scale, "the image and two overlays"


@pytest.mark.parametrize(
    "methods", [["maskclip"], pytest.param(["clip", "sclip", "gem"], marks=pytest.mark.slow)]
)
def test_explain(scene, tmp_path, capsys, methods):
    out = tmp_path / "sheet.jpg"
    assert main(["explain", scene, "--at", "40,60", "--methods", *methods, "--out", str(out)]) == 0
    assert capsys.readouterr().out.split() == [str(out)] and Image.open(out).size[0] > 256


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "{scene}", "--classes", "x", "--methods", "maskclpi"], "maskclip"),
        (["compare", "missing.png", "--classes", "x"], "missing.png"),
        (["compare", "{scene}", "--classes", "x", "--methods", "clip", "--out", "x.pdf"], ".png"),
        (["explain", "{scene}", "--at", "99999,0", "--methods", "clip"], "outside the image"),
        (["vocab", "show"], "name a vocabulary"),
        (["vocab", "show", "ade15.txt"], "ade15.txt"),
        (["vocab", "build", "voc20"], "--out"),
    ],
)
def test_wrong_use(scene, capsys, arguments, message):
    assert main([text.format(scene=scene) for text in arguments]) == 2
    assert message in capsys.readouterr().err


def test_vocab_list_and_show(tmp_path, capsys):
    assert main(["vocab", "list"]) == 0
    assert "ade150" in capsys.readouterr().out.split()
    assert main(["vocab", "show", "voc20"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 20
    assert main(["vocab", "show", "person: man | woman", "!sky"]) == 0
    assert capsys.readouterr().out.splitlines() == ["0\tperson: man | woman", "1\t!sky"]
    (tmp_path / "w.txt").write_text("a\nb\n")
    assert main(["vocab", "show", str(tmp_path / "w.txt")]) == 0
    assert capsys.readouterr().out.splitlines() == ["0\ta", "1\tb"]


def test_vocab_check_finds_words_that_are_the_same(capsys):
    assert main(["vocab", "check", "cow", "a: Cow!", "house", "--threshold", "0.9"]) in (0, 1)
    capsys.readouterr()
    assert main(["vocab", "check", "cow", "beast: COW", "house", "--threshold", "0.9999"]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "COW" in line]
    cosine, *rest = line.split("\t")
    assert float(cosine) > 0.9999 and rest == ["cow", "COW", "cow", "beast"]
    assert main(["vocab", "check", "cow", "house", "--threshold", "0.9999"]) == 0


def test_doctor(capsys):
    code = main(["doctor"])
    lines = {line.split("\t")[0]: line.split("\t")[1:] for line in capsys.readouterr().out.splitlines()}
    assert lines["ovseg"] == [ovseg.__version__] and lines["torch"] == [metadata.version("torch")]
    assert {"python", "cpu", "cache", "extra video"} <= set(lines)
    assert code == any(text.startswith("BROKEN") for line in lines.values() for text in line)


def test_doctor_sees_upstream_beside_the_fork(monkeypatch, capsys):
    known = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: "2.1.0" if name == "mmcv" else known(name))
    assert main(["doctor"]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("mmcv beside")]
    assert "BROKEN" in line and "pip uninstall -y mmcv onedl-mmcv && pip install onedl-mmcv" in line


def test_doctor_names_what_is_missing(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(doctor, "_EXTRAS", {"video": ("no_such_module", "video files")})
    monkeypatch.setattr(doctor, "_CORE", ("no-such-package",))
    monkeypatch.setenv("OVSEG_OFFLINE", "1")
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "pip install 'ovseg[video]'" in out and "pip install no-such-package" in out
    assert "nothing is fetched" in out
