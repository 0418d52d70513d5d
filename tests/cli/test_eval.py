"""``ovseg eval``: arguments, files, exit codes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("mmseg")

import ovseg
from ovseg.cli.main import main
from ovseg.methods.registry import zoo_row


@pytest.fixture
def data(tmp_path):
    for name in "ab":
        for kind, array in (
            ("images", np.zeros((32, 48, 3), np.uint8)),
            ("masks", np.ones((32, 48), np.uint8)),
        ):
            (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / f"data/{kind}/{name}.png")
    (tmp_path / "data/classes.txt").write_text("cat\ndog\n")
    return tmp_path / "data"


@pytest.fixture
def loaded(monkeypatch, tiny_clip):
    """``ovseg.load`` on a small tower; holds what it was asked for."""
    asked = {}

    def fake(name, **options):
        asked.update(name=name, **options)
        return ovseg.build(zoo_row(name).method, tiny_clip, protocol=options["protocol"])

    monkeypatch.setattr(ovseg, "load", fake, raising=False)
    return asked


def test_report_files(data, loaded, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["eval", "maskclip_vit_b16.openai", "--data", str(data), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out.split() == [str(out / "report.json"), str(out / "report.md")]
    assert "mIoU" in printed.err
    summary = json.loads((out / "report.json").read_text())
    assert summary["images"] == 2
    assert summary["paper"] is None
    assert loaded["name"] == "maskclip_vit_b16.openai"


def test_words_in_place_of_the_data_sets(data, loaded, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("cat: kitten | cat\ndog\n")
    command = ["eval", "maskclip_vit_b16.openai", "--data", str(data), "--novel", "dog"]
    assert main([*command, "--vocab", str(words), "--out", str(tmp_path / "out")]) == 0
    summary = json.loads((tmp_path / "out/report.json").read_text())
    assert summary["groups"].keys() == {"base", "novel", "harmonic_mean"}
    words.write_text("cat\n")
    assert main([*command, "--vocab", str(words), "--out", str(tmp_path / "out")]) == 2


def test_left_out_images_are_an_exit_code(data, loaded, tmp_path, capsys):
    (data / "images/b.png").write_bytes(b"broken")
    out = str(tmp_path / "out")
    assert main(["eval", "maskclip_vit_b16.openai", "--data", str(data), "--out", out, "--limit", "9"]) == 1
    assert "left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        (["nonsense_model"], "unknown model"),
        (["maskclip_vit_b16.openai", "--data", "ade15"], "ade150"),
        (["maskclip_vit_b16.openai", "--data", "ade150"], "tools/prepare/ade.py"),
        (["maskclip_vit_b16.openai", "--data", "ade150", "--protocol", "nonsense"], "no protocol 'nonsense'"),
        (["maskclip_vit_b16.openai", "--limit", "0"], "at least 1"),
        (["maskclip_vit_b16.openai", "--suite", "emoji"], "--suite runs all models"),
        (["maskclip_vit_b16.openai", "--launcher", "pytorch"], "torchrun"),
    ],
)
def test_wrong_use_names_the_cure(arguments, cure, loaded, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)
    assert main(["eval", *arguments]) == 2
    assert cure in capsys.readouterr().err


def test_release_file(data, tmp_path, capsys):
    """With its own protocol, and without a published figure."""
    path = ovseg.load("maskclip_vit_tiny.emoji").save(tmp_path / "mine.safetensors")
    out = tmp_path / "out"
    assert main(["eval", str(path), "--data", str(data), "--out", str(out)]) == 0
    assert "protocol emoji" in capsys.readouterr().err
    summary = json.loads((out / "report.json").read_text())
    assert (summary["images"], summary["paper"]) == (2, None)
    assert main(["eval", str(tmp_path / "other.safetensors"), "--data", str(data)]) == 2
    assert "no release file" in capsys.readouterr().err


def test_config_and_checkpoint(tmp_path, monkeypatch, capsys):
    asked = {}

    def fake(*arguments, **options):
        asked.update(arguments=arguments, **options)
        return {"mIoU": 12.5}

    monkeypatch.setattr("ovseg.training.run.test", fake)
    command = ["eval", "mine.py", "--checkpoint", str(tmp_path / "best.pth")]
    assert main([*command, "--data-root", "/data/mine"]) == 0
    assert capsys.readouterr().out == "mIoU 12.5\n"
    assert asked["arguments"] == ("mine.py", tmp_path / "best.pth", None)
    assert str(asked["data_root"]) == "/data/mine"
    assert main([*command, "--protocol", "sclip"]) == 2
    assert "leave out --protocol" in capsys.readouterr().err
    assert main(["eval", "mine.py"]) == 2
    assert "go together" in capsys.readouterr().err
