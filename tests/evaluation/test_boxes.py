from __future__ import annotations

import numpy as np
import pytest

from ovseg.evaluation.boxes import BoxTopK, true_ranks


def top_k(scores, labels, classes, ks=(1, 5)):
    metric = BoxTopK(classes, ks)
    metric.update(true_ranks(scores, labels), labels)
    return metric


def test_always_the_first_class():
    """Mean per class: one over the classes that occur; over boxes: the share of that class."""
    scores = np.zeros((10, 8))
    scores[:, 0] = 1
    result = top_k(scores, np.array([0, 0, 0, 0, 0, 0, 1, 2, 3, 3]), 8).compute()
    assert result["top1_macro"] == pytest.approx(1 / 4)
    assert result["top1_micro"] == pytest.approx(0.6)


def test_top_five_of_five_classes_is_always_right():
    found = top_k(np.random.default_rng(0).random((30, 5)), np.arange(30) % 5, 5).compute()
    assert found["top5_macro"] == found["top5_micro"] == 1


def test_batches_add_up_and_ranks_count():
    rng = np.random.default_rng(1)
    scores, labels = rng.random((40, 7)), rng.integers(0, 7, 40)
    whole, parts = top_k(scores, labels, 7, (1, 3)), BoxTopK(7, (1, 3))
    for start in range(0, 40, 9):
        some = slice(start, start + 9)
        parts.update(true_ranks(scores[some], labels[some]), labels[some])
    assert whole.compute() == parts.compute()
    best = np.argsort(-scores, axis=1)[:, :3]
    assert whole.compute()["top3_micro"] == pytest.approx((best == labels[:, None]).any(axis=1).mean())


def test_groups_of_classes_compete_with_all():
    scores = np.array([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.2, 0.3, 0.5]])
    metric = top_k(scores, np.array([0, 1, 2]), 3, (1,))
    assert metric.compute([0, 1]) == {"top1_macro": 0.5, "top1_micro": 0.5}
    assert metric.compute([2])["top1_macro"] == 1
    assert metric.compute()["top1_micro"] == pytest.approx(2 / 3)


def test_no_boxes_and_wrong_shapes():
    assert np.isnan(BoxTopK(3).compute()["top1_macro"])
    with pytest.raises(ValueError, match="do not fit 2 boxes"):
        true_ranks(np.zeros((3, 4)), np.zeros(2, int))
    with pytest.raises(ValueError, match="2 boxes need as many ranks, got 3"):
        BoxTopK(3).update(np.zeros(3, int), np.zeros(2, int))
