"""``ovseg train`` and ``ovseg check-data``: arguments, files, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("mmseg")

from ovseg.cli.main import main
from ovseg.training import run
from ovseg.training.check_data import is_segmentation

CONFIG = """
train_dataloader = dict(
    dataset=dict(type="ovseg.FolderDataset", data_root="data/mine", pipeline=[])
)
model = dict(type="mmseg.EncoderDecoder", decode_head=dict(num_classes={classes}))
default_scope = "mmseg"
"""


@pytest.fixture
def config(tmp_path):
    rng = np.random.default_rng(0)
    for kind, shape in (("images", (20, 30, 3)), ("masks", (20, 30))):
        (tmp_path / "sets/mine" / kind).mkdir(parents=True)
        array = rng.integers(0, 2, shape).astype(np.uint8)
        Image.fromarray(array).save(tmp_path / f"sets/mine/{kind}/a.png")
    (tmp_path / "sets/mine/classes.txt").write_text("cat\ndog\n")
    path = tmp_path / "config.py"
    path.write_text(CONFIG.format(classes=2))
    return path


def options(config):
    folder = config.parent
    return [str(config), "--data-root", str(folder / "sets"), "--work-dir", str(folder / "work")]


def test_check_data(config, capsys):
    assert main(["check-data", *options(config)]) == 0
    out = capsys.readouterr().out
    assert "1 of 1 images read, 0.0 % of pixels left out" in out
    assert "dog" in out
    assert (config.parent / "work/check_data/0.png").is_file()


def test_check_data_refuses_a_class_list_that_does_not_fit(config, capsys):
    change = ["--cfg-options", "model.decode_head.num_classes=3"]
    assert main(["check-data", *options(config), *change]) == 2
    assert "the model has 3 classes, the data set 2" in capsys.readouterr().err


def test_train_looks_at_the_data_first(config, capsys, monkeypatch):
    asked = {}
    monkeypatch.setattr(run, "train", lambda cfg, *rest, **more: asked.update(cfg=cfg, rest=rest, more=more))
    change = ["--cfg-options", "a.b=[1,2]", "c=0.5", "--amp", "--resume"]
    assert main(["train", *options(config), *change]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == str(config.parent / "work")
    assert "images read" not in printed.err  # a resumed training has seen its data
    assert (asked["cfg"].a.b, asked["cfg"].c) == ([1, 2], 0.5)
    assert asked["more"]["amp"]
    assert asked["rest"][1] is True
    assert main(["train", *options(config)]) == 0
    assert "1 of 1 images read" in capsys.readouterr().err
    assert main(["train", *options(config), "--no-check"]) == 0
    assert "images read" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "expected"),
    [("region_clip/emoji_boxes", False), ("emoji/clip_vit_tiny", False), ("probes/linear_camvid", True)],
)
def test_only_label_maps_are_looked_at(name, expected):
    path = Path(__file__).parents[2] / "configs" / f"{name}.py"
    assert is_segmentation(run.prepare_config(path)) == expected


@pytest.mark.parametrize("command", ["train", "eval"])
def test_logs_go_to_stderr(config, capsys, monkeypatch, command):
    def log(*_, **__):
        print("step 1")
        return {"mIoU": 50.0}

    monkeypatch.setattr(run, "train", log)
    monkeypatch.setattr(run, "test", log)
    if command == "train":
        arguments, result = [*options(config), "--no-check"], str(config.parent / "work")
    else:
        arguments, result = [str(config), "--checkpoint", "best.pth"], "mIoU 50.0"
    assert main([command, *arguments]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == result
    assert "step 1" in printed.err


@pytest.mark.slow
def test_nothing_but_results_on_stdout(config):
    command = [sys.executable, "-m", "ovseg", "check-data", *options(config)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    assert run.stdout.startswith("1 of 1 images read")


def test_wrong_use_names_the_cure(config, capsys, tmp_path):
    assert main(["train", str(tmp_path / "absent.py")]) == 2
    assert "absent.py" in capsys.readouterr().err
    assert main(["train", *options(config), "--cfg-options", "nonsense"]) == 2
    assert "KEY=VALUE" in capsys.readouterr().err
    (config.parent / "other.py").write_text("model = dict(type='x')\n")
    assert main(["check-data", str(config.parent / "other.py")]) == 2
    assert "nothing to check" in capsys.readouterr().err
