from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ovseg.datasets.open_vocabulary import open_vocabulary_split, restrict_annotations
from ovseg.vocab.shipped import read_list

ROOT = Path(__file__).resolve().parents[2]
NOVEL_AT = [4, 5, 11, 12, 15, 16, 21, 23, 27, 29, 32, 34, 45, 47, 54, 58, 63]
BASE_IDS = [
    1, 2, 3, 4, 7, 8, 9, 15, 16, 19, 20, 23, 24, 25, 27, 31, 33, 34, 35, 38, 42, 44, 48, 50, 51, 52, 53, 54, 55, 56,
    57, 59, 60, 62, 65, 70, 72, 73, 74, 75, 78, 79, 80, 82, 84, 85, 86, 90,
]  # fmt: skip
NEITHER = [10, 11, 13, 14, 37, 39, 40, 43, 46, 58, 64, 67, 77, 88, 89]  # the two-word names
COCO_IDS = sorted({*range(1, 91)} - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83})


def test_the_split_of_ov_coco():
    split = open_vocabulary_split("coco_ov65")
    assert (len(split.base), len(split.novel)) == (48, 17)
    assert not set(split.base) & set(split.novel)
    assert sorted(split.base + split.novel) == sorted(split.classes)
    assert [i for i, name in enumerate(split.classes) if name in split.novel] == NOVEL_AT
    entries = read_list("coco_ov65")["classes"]
    ids = [entry["coco_id"] for entry in entries]
    assert ids == sorted(ids)
    assert [e["coco_id"] for e in entries if e["group"] == "base"] == BASE_IDS
    assert sorted(set(COCO_IDS) - set(ids)) == NEITHER


def test_the_split_of_ov_lvis():
    split = open_vocabulary_split("lvis_v1.regionclip")
    assert (len(split.classes), len(split.base), len(split.novel)) == (1203, 866, 337)
    rare = {e["name"] for e in read_list("lvis_v1.regionclip")["classes"] if e["frequency"] == "r"}
    assert set(split.novel) == rare


def test_metainfo_and_errors():
    split = open_vocabulary_split()
    assert split.metainfo("base")["classes"] == split.base
    assert split.metainfo()["classes"] == split.classes and split.metainfo()["novel_classes"] == split.novel
    with pytest.raises(ValueError, match="unknown group 'rare'"):
        split.metainfo("rare")
    with pytest.raises(ValueError, match="'voc20' has no base and novel classes"):
        open_vocabulary_split("voc20")


def document():
    """In COCO's layout: a person, a tie, a traffic light, and an image without anything."""
    return {
        "info": {"year": 2017},
        "images": [{"id": i, "file_name": f"{i:012d}.jpg", "height": 40, "width": 60} for i in (1, 2, 3)],
        "categories": [
            {"id": 1, "name": "person"},
            {"id": 10, "name": "traffic light"},
            {"id": 32, "name": "tie"},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 20], "area": 200, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 32, "bbox": [3, 2, 4, 8], "area": 32, "iscrowd": 0},
            {"id": 3, "image_id": 2, "category_id": 10, "bbox": [3, 2, 4, 8], "area": 32, "iscrowd": 0},
        ],
    }


def test_annotations_keep_to_the_classes():
    kept = restrict_annotations(document(), ["person", "tie"])
    assert [image["id"] for image in kept["images"]] == [1]
    assert [item["id"] for item in kept["annotations"]] == [1, 2]
    assert [category["name"] for category in kept["categories"]] == ["person", "tie"]
    assert kept["info"] == {"year": 2017}
    with pytest.raises(ValueError, match="no category cat; are they COCO's"):
        restrict_annotations(document(), ["person", "cat"])


def test_the_tool_writes_both_files(tmp_path):
    folder = tmp_path / "annotations"
    folder.mkdir()
    full = document()
    full["categories"] = [{"id": e["coco_id"], "name": e["name"]} for e in read_list("coco_ov65")["classes"]]
    full["categories"] += [{"id": 10, "name": "traffic light"}]
    for split in ("train", "val"):
        (folder / f"instances_{split}2017.json").write_text(json.dumps(full))
    command = [sys.executable, str(ROOT / "tools" / "prepare" / "ov_coco.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    base = json.loads((folder / "instances_train2017_base.json").read_text())
    everything = json.loads((folder / "instances_val2017_all.json").read_text())
    assert (len(base["categories"]), len(everything["categories"])) == (48, 65)
    assert [a["id"] for a in base["annotations"]] == [1] and [a["id"] for a in everything["annotations"]] == [
        1,
        2,
    ]
    (folder / "instances_val2017.json").unlink()
    assert subprocess.run(command, capture_output=True).returncode == 2
