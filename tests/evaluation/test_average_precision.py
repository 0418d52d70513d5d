"""Against mmdet's and LVIS's own tools, and by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools import mask as rle

from ovseg.evaluation.average_precision import average_precision
from ovseg.evaluation.ground_truth import Federated, GroundTruth, parse_ground_truth

BOXES = np.array([[0.0, 0, 10, 10], [20, 20, 40, 50], [50, 0, 90, 30]])


def truth(boxes=BOXES, labels=(0, 1, 1), **more):
    return GroundTruth("a.jpg", (60, 100), np.asarray(boxes, float), np.array(labels, int), **more)


def precision(truths, found, classes=2, limit=100):
    """``found``: for each image a list of (box, score, label)."""
    columns = [
        (np.array([b for b, _, _ in own], float).reshape(-1, 4), np.array([s for _, s, _ in own], float),
         np.array([k for *_, k in own], int))
        for own in found
    ]  # fmt: skip
    return average_precision(truths, *zip(*columns), classes, limit)


def test_perfect_empty_and_absent():
    perfect = precision([truth()], [[(box, 0.5, k) for box, k in zip(BOXES, (0, 1, 1))]], classes=3)
    assert [*perfect.ap[:2], *perfect.ap50[:2]] == pytest.approx([1] * 4)
    assert np.isnan(perfect.ap[2]) and perfect.mean() == pytest.approx({"ap": 1, "ap50": 1})
    assert np.isnan(perfect.mean([2])["ap50"])
    nothing = precision([truth()], [[]])
    assert nothing.mean() == nothing.mean([1]) == {"ap": 0, "ap50": 0}


def test_a_wrong_detection_above_a_right_one():
    wrong = (np.array([0.0, 40, 10, 60]), 0.9, 0)
    found = precision([truth()], [[wrong, (BOXES[0], 0.8, 0)]])
    assert found.ap50[0] == pytest.approx(0.5)
    assert found.ap50[1] == 0
    shifted = (BOXES[0] + [0, 0, 0, 5], 0.9, 0)  # IoU 2/3: right at 0.5, 0.55, 0.6 and 0.65
    assert precision([truth()], [[shifted]]).ap[0] == pytest.approx(0.4)
    assert precision([truth()], [[shifted]]).ap50[0] == pytest.approx(1)


def test_crowds_are_neither_right_nor_wrong():
    crowd = {"crowds": np.array([[0.0, 30, 20, 60]]), "crowd_labels": np.array([0])}
    inside = (np.array([2.0, 40, 12, 55]), 0.9, 0)
    right = (BOXES[0], 0.8, 0)
    assert precision([truth()], [[inside, right]]).ap50[0] == pytest.approx(0.5)
    assert precision([truth(**crowd)], [[inside, right]]).ap50[0] == pytest.approx(1)


def test_what_lvis_did_not_look_for_does_not_count():
    """A detection of a class is wrong where it is known to be absent, and not counted where nobody looked."""
    plain = truth(federated=Federated(frozenset({0, 1}), frozenset()))
    elsewhere = np.zeros((0, 4))
    hit, false = [(BOXES[0], 0.8, 0)], [(np.array([0.0, 0, 9, 9]), 0.9, 0)]

    def ap(searched, partial=()):
        other = truth(elsewhere, [], federated=Federated(frozenset(searched), frozenset(partial)))
        return precision([plain, other], [hit, false]).ap50[0]

    assert ap({0}) == pytest.approx(0.5)
    assert ap({1}) == pytest.approx(1)
    assert ap({0}, {0}) == pytest.approx(1)


def test_detections_of_an_image_are_limited_as_each_data_set_has_it():
    found = [(BOXES[1], 0.9, 1), (BOXES[0], 0.8, 0)]
    assert precision([truth()], [found], limit=1).ap50[0] == pytest.approx(1)  # COCO: of each class
    limited = precision([truth(federated=Federated(frozenset({0, 1}), frozenset()))], [found], limit=1)
    assert limited.ap50[0] == 0


def lvis_document(rng, images=12, classes=6):
    """Random, in the layout of ``lvis_v1_val.json``."""
    document = {"images": [], "annotations": [], "categories": []}
    for k in range(classes):
        document["categories"].append(
            {"id": k + 1, "name": f"thing_{k}", "frequency": "rcf"[k % 3], "image_count": 1, "synset": "x"}
        )
    for i in range(images):
        present = rng.choice(classes, 2, replace=False)
        others = [k + 1 for k in range(classes) if k not in present]
        document["images"].append(
            {"id": 100 + i, "coco_url": f"http://images.cocodataset.org/val2017/{i:012d}.jpg", "height": 100,
             "width": 100, "neg_category_ids": others[:2], "not_exhaustive_category_ids": [int(present[0]) + 1]}
        )  # fmt: skip
        for k in present.tolist() * 2:
            x, y = rng.integers(0, 60, 2).tolist()
            w, h = rng.integers(10, 40, 2).tolist()
            document["annotations"].append(
                {"id": len(document["annotations"]) + 1, "image_id": 100 + i, "category_id": k + 1, "bbox": [x, y, w, h],
                 "area": w * h, "segmentation": [[x, y, x + w, y, x + w, y + h]]}
            )  # fmt: skip
    return document


def random_detections(rng, truths, classes, count):
    """Some near true boxes, some anywhere; arrays for each image."""
    found = []
    for one in truths:
        boxes = rng.uniform(0, 60, (count, 2))
        boxes = np.concatenate([boxes, boxes + rng.uniform(10, 40, (count, 2))], axis=1)
        labels = rng.integers(0, classes, count)
        for i in range(count // 2 if len(one.boxes) else 0):
            pick = rng.integers(len(one.boxes))
            boxes[i] = one.boxes[pick] + rng.normal(0, 2, 4)
            labels[i] = one.labels[pick]
        found.append((boxes, rng.random(count), labels))
    return zip(*found)


def triangle(box):
    """Half of a box, as run lengths of an image of 100 pixels a side."""
    x1, y1, x2, y2 = box.tolist()
    return rle.merge(rle.frPyObjects([[x1, y1, x2, y1, x2, y2]], 100, 100))


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_equals_lvis(kind, tmp_path, monkeypatch):
    lvis = pytest.importorskip("lvis")
    monkeypatch.setattr(np, "float", float, raising=False)  # it uses numpy's old name
    rng = np.random.default_rng(0)
    document = lvis_document(rng)
    truths = list(parse_ground_truth(document, [c["name"] for c in document["categories"]], kind == "segm"))
    boxes, scores, labels = random_detections(rng, truths, 6, 30)
    masks = [[triangle(box) for box in own] for own in boxes]
    given = masks if kind == "segm" else None
    ours = average_precision(truths, boxes, scores, labels, 6, limit=20, masks=given)
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps(document))
    rows = [
        {"image_id": t.image_id, "category_id": int(k) + 1, "score": float(s),
         **({"segmentation": m} if kind == "segm" else {"bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]]})}
        for t, own, shapes, values, names in zip(truths, boxes, masks, scores, labels)
        for b, m, s, k in zip(own.tolist(), shapes, values, names)
    ]  # fmt: skip
    gt = lvis.LVIS(str(path))
    theirs = lvis.LVISEval(gt, lvis.LVISResults(gt, rows, max_dets=20), kind)
    theirs.run()
    expected = theirs.eval["precision"][..., 0]  # (IoU, recall, class)
    np.testing.assert_allclose(ours.ap, expected.mean((0, 1)), atol=1e-12)
    np.testing.assert_allclose(ours.ap50, expected[0].mean(0), atol=1e-12)
    by_frequency = {"r": (0, 3), "c": (1, 4), "f": (2, 5)}
    for letter, classes in by_frequency.items():
        assert ours.mean(classes)["ap"] == pytest.approx(theirs.results[f"AP{letter}"])
    assert 0.05 < ours.mean()["ap"] < 0.95
