from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from ovseg.regions.classify import class_rows, mask_classes, region_logits, region_scores
from ovseg.regions.fuse import class_exponents, fuse, objectness_scores
from ovseg.regions.select import Selection, select_detections
from ovseg.vocab.text_bank import TextBank
from ovseg.vocab.vocabulary import Vocabulary


def bank(rows, normalised=False):
    vocabulary = Vocabulary.of([f"class {k}" for k in range(len(rows))])
    return TextBank(rows[:, None], normalised, torch.arange(len(rows)), vocabulary)


def test_zero_background_has_the_probability_of_logit_zero():
    row, scale = torch.tensor([[0.6, 0.8]]), 20.0
    rows = class_rows(bank(row.repeat(5, 1)))
    region = torch.tensor([[3.0, 4.0]]) @ torch.tensor([[0.8, 0.6], [-0.6, 0.8]])  # turned: some cosine c
    cosine = float(F.cosine_similarity(region, row))
    background = region_logits(region, rows, scale).softmax(dim=1)[0, -1]
    assert 0.1 < cosine < 0.99
    assert background == pytest.approx(1 / (1 + 5 * math.exp(cosine * scale)))


def test_background_rows():
    words, own = torch.randn(3, 8), torch.randn(8)
    for policy in ("learned", "word"):
        rows = class_rows(bank(words), own, policy)
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(4))
        torch.testing.assert_close(rows[-1], own / own.norm())
    assert class_rows(bank(words), policy="none").shape == (3, 8)
    assert not class_rows(bank(words))[-1].any()
    for policy, row in (("learned", None), ("zero", own), ("none", own), ("other", None)):
        with pytest.raises(ValueError, match="background policy"):
            class_rows(bank(words), row, policy)


def test_a_learned_background_learns():
    own = torch.nn.Parameter(torch.randn(8))
    region_logits(torch.randn(4, 8), class_rows(bank(torch.randn(3, 8)), own, "learned")).sum().backward()
    assert own.grad.abs().sum() > 0


def test_classes_left_out_of_training_get_no_gradient():
    logits = torch.randn(6, 5, requires_grad=True)  # four classes and background
    allowed = torch.tensor([True, False, True, False])
    masked = mask_classes(logits, allowed)
    assert not masked.softmax(dim=1)[:, ~F.pad(allowed, (0, 1), value=True)].any()
    F.cross_entropy(masked, torch.tensor([0, 2, 4, 0, 2, 4])).backward()
    assert not logits.grad[:, [1, 3]].any()
    assert logits.grad[:, [0, 2, 4]].abs().min() > 0


def test_a_class_takes_the_best_of_its_words():
    logits = torch.randn(6, 5)
    scores = region_scores(logits, torch.tensor([1, 0, 1, 2]), 3)
    p = logits.softmax(dim=1)
    wanted = torch.stack([p[:, 1], torch.maximum(p[:, 0], p[:, 2]), p[:, 3], p[:, 4]], dim=1)
    torch.testing.assert_close(scores, wanted)
    torch.testing.assert_close(region_scores(logits, torch.arange(4), 4), p)


probability = st.floats(0.01, 1)


@settings(max_examples=50, deadline=None)
@given(probability, probability, st.floats(0.05, 0.95))
def test_the_geometric_mean(detector, clip, alpha):
    d, v = (torch.tensor([[x]], dtype=torch.float64) for x in (detector, clip))
    mixed = float(fuse([d, v], [1 - alpha, alpha]))
    assert min(detector, clip) - 1e-9 <= mixed <= max(detector, clip) + 1e-9
    assert float(fuse([d, d], [1 - alpha, alpha])) == pytest.approx(detector)
    assert float(fuse([d, v], [1, 0])) == pytest.approx(detector)
    assert float(fuse([d, v], [0, 1])) == pytest.approx(clip)
    assert float(fuse([d, (v + 0.1)], [1 - alpha, alpha])) > mixed
    assert float(fuse([d + 0.1, v], [1 - alpha, alpha])) > mixed


def test_exponents_by_group():
    novel = torch.tensor([False, True])
    alpha = class_exponents(novel, 0.1, 0.8, 0.1)
    d, v = torch.rand(5, 3), torch.rand(5, 3)
    fused = fuse([d, v], [1 - alpha, alpha])
    torch.testing.assert_close(fused[:, 0], d[:, 0] ** 0.9 * v[:, 0] ** 0.1)
    torch.testing.assert_close(fused[:, 1], d[:, 1] ** 0.2 * v[:, 1] ** 0.8)
    torch.testing.assert_close(fused[:, 2], d[:, 2] ** 0.9 * v[:, 2] ** 0.1)
    assert len(class_exponents(novel, 0.1, 0.8)) == 2
    with pytest.raises(ValueError, match="2 sources need as many exponents"):
        fuse([d, v], [1.0])


def test_raw_logits_drop_and_exceed_and_probabilities_do_not():
    d, logits = torch.full((3, 2), 0.9), torch.tensor([-0.1, 0.5, 4.0])
    boxes = torch.tensor([[0.0, 0, 5, 5], [10, 0, 15, 5], [20, 0, 25, 5]])
    raw = fuse([d, objectness_scores(logits, "raw_logit")], [0.5, 0.5])
    assert raw[0].isnan().all() and raw[2].min() > 1
    found = select_detections(boxes, raw, Selection())
    assert sorted(found.regions.tolist()) == [1, 1, 2, 2]
    sane = fuse([d, objectness_scores(logits, "sigmoid")], [0.5, 0.5])
    assert ((sane > 0) & (sane < 1)).all()
    with pytest.raises(ValueError, match="unknown objectness rule"):
        objectness_scores(logits, "softmax")


def random_boxes(count):
    corner = torch.rand(count, 2) * 60
    return torch.cat([corner, corner + 5 + torch.rand(count, 2) * 40], dim=1)


def test_the_last_class_survives_without_background():
    """mmdet's multi-class NMS drops the last column; ours takes K columns."""
    found = select_detections(random_boxes(1), torch.tensor([[0.1, 0.2, 0.7]]), Selection())
    assert found.labels[0] == 2


def test_suppression_is_by_class_unless_asked():
    boxes, scores = random_boxes(80), torch.rand(80, 3)
    found = select_detections(boxes, scores, Selection(threshold=0.3, nms=0.4, limit=1000))
    assert (found.scores > 0.3).all() and (found.scores.diff() <= 0).all()
    torch.testing.assert_close(found.scores, scores[found.regions, found.labels])
    overlap = box_iou(found.boxes, found.boxes).fill_diagonal_(0)
    same = found.labels[:, None] == found.labels
    assert overlap[same].max() <= 0.4 < overlap[~same].max()
    alone = select_detections(boxes, scores, Selection(nms=0.4, limit=1000, across_classes=True))
    assert box_iou(alone.boxes, alone.boxes).fill_diagonal_(0).max() <= 0.4
    assert len(select_detections(boxes, scores, Selection(limit=7)).labels) == 7


def test_soft_suppression_keeps_more_and_lowers():
    boxes, scores = random_boxes(40), torch.rand(40, 2)
    hard = select_detections(boxes, scores, Selection(nms=0.5, limit=1000))
    soft = select_detections(boxes, scores, Selection(limit=1000, soft_sigma=0.5))
    assert len(soft.labels) > len(hard.labels)
    assert (soft.scores.diff() <= 0).all()
    lowered = scores[soft.regions, soft.labels] - soft.scores
    assert lowered.min() >= -1e-6 and lowered.max() > 0.1


def test_nothing_above_the_threshold():
    for sigma in (None, 0.5):
        found = select_detections(random_boxes(3), torch.zeros(3, 2), Selection(soft_sigma=sigma))
        assert found.boxes.shape == (0, 4) and not len(found.labels)
