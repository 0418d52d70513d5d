"""``ovseg eval`` on boxes: files, exit codes, messages."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("mmseg")

import ovseg
from ovseg.cli.main import main
from ovseg.inference.protocol import Protocol, Resize
from ovseg.inference.steps import Softmax


@pytest.fixture
def annotations(tmp_path):
    """Two images of cats and dogs beside their annotations."""
    rng = np.random.default_rng(0)
    boxes = [[2, 3, 20, 25], [30, 10, 25, 30]]
    document = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 48, "width": 64} for i in range(2)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": 2 * i + k + 1, "image_id": i, "category_id": k + 1, "bbox": boxes[k], "area": 1, "iscrowd": 0}
            for i in range(2)
            for k in range(2)
        ],
    }  # fmt: skip
    (tmp_path / "images").mkdir()
    for i in range(2):
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).save(tmp_path / f"images/{i}.png")
    (tmp_path / "pets.json").write_text(json.dumps(document))
    return tmp_path / "pets.json"


@pytest.fixture
def small(monkeypatch, tiny_clip):
    protocol = Protocol("test", Resize(64), templates="imagenet7", steps=(Softmax(),), background="words")
    predictor = ovseg.build("maskclip", tiny_clip, protocol=protocol)
    monkeypatch.setattr(ovseg, "load", lambda name, **options: predictor, raising=False)


COMMAND = ["eval", "maskclip_vit_b16.openai", "--data"]


def test_true_boxes(annotations, small, tmp_path, capsys):
    out = tmp_path / "out"
    command = [*COMMAND, str(annotations), "--novel", "dog", "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert printed.out.split() == [str(out / "report.json"), str(out / "report.md")]
    assert "AP50 all" in printed.err and "true boxes named right" in printed.err
    summary = json.loads((out / "report.json").read_text())
    assert summary["groups"].keys() == {"all", "base", "novel"} and summary["boxes"] == 4
    assert summary["settings"]["proposals"] == "truth" and summary["paper"] is None


def test_boxes_from_a_file(annotations, small, tmp_path, capsys):
    path = tmp_path / "found.json"
    rows = [{"image_id": 0, "category_id": 1, "bbox": [2, 3, 20, 25], "score": 0.9}]
    path.write_text(json.dumps(rows))
    out = tmp_path / "out"
    assert main([*COMMAND, str(annotations), "--proposals", str(path), "--out", str(out)]) == 0
    summary = json.loads((out / "report.json").read_text())
    assert summary["top_k"] is None and summary["detections"] == 2  # one box, two classes
    assert "true boxes" not in capsys.readouterr().err


def test_unreadable_images_are_named(annotations, small, tmp_path, capsys):
    (tmp_path / "images/1.png").write_bytes(b"broken")
    assert main([*COMMAND, str(annotations), "--out", str(tmp_path / "out")]) == 1
    assert "left out: 1.png" in capsys.readouterr().err
    report = (tmp_path / "out/report.md").read_text()
    assert "**1 images left out:**" in report and "1 images, 2 true boxes" in report


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        (["emoji", "--proposals", "grid"], "--proposals goes with data that has boxes"),
        (["ov_coco"], "Download COCO 2017's annotations"),
        (["ov_lvis"], "Download LVIS v1's annotations"),
        (["nothing.json"], "nothing.json"),
    ],
)
def test_wrong_use_names_the_cure(arguments, cure, small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*COMMAND, *arguments]) == 2
    assert cure in capsys.readouterr().err


def test_a_source_that_is_none(annotations, small, tmp_path, capsys):
    assert main([*COMMAND, str(annotations), "--proposals", "everywhere", "--out", str(tmp_path / "o")]) == 2
    assert "truth, segments, grid" in capsys.readouterr().err
