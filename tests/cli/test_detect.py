from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ovseg.cli.main import main


def test_writes_picture_and_boxes_and_counts(predictor, photo, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["detect", str(photo), "--classes", "car", "cat", "--out", str(out)]) == 0
    stdout, stderr = capsys.readouterr()
    assert stdout.splitlines() == [str(out / "photo.jpg.overlay.png"), str(out / "photo.jpg.coco.json")]
    assert len(json.loads((out / "photo.jpg.coco.json").read_text())["annotations"]) == 2
    assert "2 car" in stderr and "cat" not in stderr
    assert "1 done, 0 failed, 2 objects" in stderr
    assert predictor.asked == {
        "templates": None, "proposals": None, "threshold": 0.3, "background": None,
    }  # fmt: skip


def test_names_each_bad_file_and_does_the_good_one(predictor, photo, tmp_path, capsys):
    (tmp_path / "empty.jpg").touch()
    arguments = ["--classes", "car", "--format", "yolo", "--threshold", "0.5", "--out", str(tmp_path / "o")]
    assert main(["detect", str(tmp_path), *arguments]) == 1
    stdout, stderr = capsys.readouterr()
    assert [Path(line).name for line in stdout.splitlines()] == ["photo.jpg.yolo.txt"]
    assert "failed: " in stderr and "empty.jpg" in stderr and "1 done, 1 failed" in stderr
    assert predictor.asked["threshold"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        (["{photo}", "--proposals", "boxes.npz"], "no such file; give segments, grid"),
        (["{photo}", "{other}", "--proposals", "{boxes}"], "boxes of one image, but there are 2"),
    ],
)
def test_wrong_use_is_code_2_before_a_model_loads(predictor, photo, tmp_path, capsys, arguments, cure):
    other, boxes = tmp_path / "b.jpg", tmp_path / "b.npz"
    other.write_bytes(photo.read_bytes())
    np.savez(boxes, boxes=[[0, 0, 2, 2]])
    filled = [text.format(photo=photo, other=other, boxes=boxes) for text in arguments]
    assert main(["detect", *filled, "--classes", "car"]) == 2
    assert cure in capsys.readouterr().err
    assert not predictor.opened


@pytest.mark.parametrize(
    "arguments", [["--threshold", "2"], ["--threshold", "x"], ["--format", "png"], ["--masks", "sum"]]
)
def test_arguments_that_do_not_parse(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["detect", "a.jpg", "--classes", "car", *arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert any(cure in error for cure in ("0 to 1", "coco, overlay, yolo", "sam, sam_vit_b, "))


def test_masks_by_sam(predictor, photo, tmp_path, monkeypatch, capsys):
    """``--masks sam`` hands each result to SAM, on the model's device; what SAM cannot do fails alone."""
    asked = []

    def add_masks(result, sam):
        asked.append(sam)
        if len(asked) == 2:
            raise MemoryError
        return result

    monkeypatch.setattr("ovseg.towers.auxiliary.auxiliary_tower", lambda name, device: (name, device.type))
    monkeypatch.setattr("ovseg.inference.sam_boxes.add_masks", add_masks)
    predictor.model = torch.nn.Linear(1, 1)
    (tmp_path / "b.jpg").write_bytes(photo.read_bytes())
    inputs = [str(photo), str(tmp_path / "b.jpg")]
    out = ["--out", str(tmp_path / "out"), "--format", "coco"]
    assert main(["detect", *inputs, "--classes", "car", "--masks", "sam", *out]) == 1
    assert asked == [("sam_vit_b", "cpu")] * 2
    stdout, stderr = capsys.readouterr()
    assert [Path(line).name for line in stdout.splitlines()] == ["photo.jpg.coco.json"]
    assert "not enough memory" in stderr


def test_masks_of_a_real_sam_reach_the_file(predictor, photo, tmp_path, monkeypatch):
    """One of random weights: each box gets a mask of the image's size."""
    from pycocotools import mask as rle
    from small_sam import small_sam

    from ovseg.towers.auxiliary import auxiliary_info
    from ovseg.towers.sam import SamTower

    sam = SamTower(small_sam(), auxiliary_info("sam_vit_b"))
    monkeypatch.setattr("ovseg.towers.auxiliary.auxiliary_tower", lambda name, device: sam)
    predictor.model = torch.nn.Linear(1, 1)
    out = tmp_path / "out"
    command = ["detect", str(photo), "--classes", "car", "--masks", "sam", "--format", "overlay,coco"]
    assert main([*command, "--out", str(out)]) == 0
    document = json.loads((out / "photo.jpg.coco.json").read_text())
    shapes = [rle.decode(item["segmentation"]).shape for item in document["annotations"]]
    assert shapes == [(48, 64)] * 2
    assert (out / "photo.jpg.overlay.png").is_file()
