from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import ovseg
from ovseg.evaluation.boxes import BoxTopK, evaluate_boxes, read_ground_truth
from ovseg.vocab.vocabulary import Vocabulary


def test_always_the_first_class():
    """Mean per class: one over the classes that occur; over boxes: the share of that class."""
    metric = BoxTopK(classes=8)
    scores = np.zeros((10, 8))
    scores[:, 0] = 1
    metric.update(scores, np.array([0, 0, 0, 0, 0, 0, 1, 2, 3, 3]))
    result = metric.compute()
    assert result["top1_macro"] == pytest.approx(1 / 4)
    assert result["top1_micro"] == pytest.approx(0.6)


def test_top_five_of_five_classes_is_always_right():
    metric = BoxTopK(classes=5)
    metric.update(np.random.default_rng(0).random((30, 5)), np.arange(30) % 5)
    assert metric.compute()["top5_macro"] == metric.compute()["top5_micro"] == 1


def test_batches_add_up_and_ranks_count():
    rng = np.random.default_rng(1)
    scores, labels = rng.random((40, 7)), rng.integers(0, 7, 40)
    whole, parts = BoxTopK(7, (1, 3)), BoxTopK(7, (1, 3))
    whole.update(scores, labels)
    for start in range(0, 40, 9):
        parts.update(scores[start : start + 9], labels[start : start + 9])
    assert whole.compute() == parts.compute()
    best = np.argsort(-scores, axis=1)[:, :3]
    assert whole.compute()["top3_micro"] == pytest.approx((best == labels[:, None]).any(axis=1).mean())


def test_no_boxes_and_wrong_shapes():
    assert np.isnan(BoxTopK(3).compute()["top1_macro"])
    with pytest.raises(ValueError, match="do not fit 2 boxes and 3 classes"):
        BoxTopK(3).update(np.zeros((2, 4)), np.zeros(2, int))


def annotations(**image):
    return {
        "images": [
            {"id": 7, "height": 40, "width": 60, **image},
            {"id": 8, "height": 9, "width": 9, "file_name": "b.jpg"},
        ],
        "categories": [{"id": 3, "name": "car"}, {"id": 1, "name": "person"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "bbox": [1, 2, 10, 20], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [5, 5, 5, 5]},
            {"id": 3, "image_id": 7, "category_id": 1, "bbox": [0, 0, 50, 30], "iscrowd": 1},
            {"id": 4, "image_id": 7, "category_id": 3, "bbox": [5, 5, 0, 5], "iscrowd": 0},
        ],
    }


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ({"file_name": "a.jpg"}, "a.jpg"),
        ({"coco_url": "http://images.cocodataset.org/val2017/a.jpg"}, "val2017/a.jpg"),
    ],
)
def test_ground_truth_of_coco_and_lvis(tmp_path, image, name):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(annotations(**image)))
    (truth,) = read_ground_truth(path, ["person", "car"])
    assert truth.file_name == name and truth.size == (40, 60)
    assert truth.boxes.tolist() == [[1, 2, 11, 22], [5, 5, 10, 10]] and truth.labels.tolist() == [0, 1]
    with pytest.raises(ValueError, match="no category cat"):
        next(read_ground_truth(path, ["cat"]))
    path.write_text("{}")
    with pytest.raises(ValueError, match="has not COCO's layout"):
        next(read_ground_truth(path, ["car"]))


def test_a_data_set_through_a_predictor(tiny_clip, tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(tmp_path / "a.png")
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(annotations(file_name="a.png")))
    predictor = ovseg.build("maskclip", tiny_clip)
    words = Vocabulary.of(["person", "car", "dog"])
    (truth,) = read_ground_truth(path, words.names[:2])
    document = json.loads(path.read_text())
    document["categories"].append({"id": 9, "name": "dog"})
    path.write_text(json.dumps(document))
    scores = predictor.classify(tmp_path / "a.png", truth.boxes, words)
    assert (
        scores.shape == (2, 3) and (scores > 0).all() and (scores.sum(axis=1) < 1).all()
    )  # the rest is background
    result = evaluate_boxes(predictor, path, tmp_path, words)
    assert result["boxes"] == 2 and result["images"] == 1
    assert result["top1_micro"] == pytest.approx((scores.argmax(axis=1) == truth.labels).mean())
    assert result["top5_macro"] == 1
