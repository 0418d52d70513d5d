from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ovseg.regions.losses import (
    concept_contrastive_loss,
    distillation_loss,
    focal_cross_entropy,
    image_text_loss,
    region_box_loss,
    weighted_cross_entropy,
)

LOGITS, LABELS = (
    torch.randn(8, 4, generator=torch.Generator().manual_seed(0)),
    torch.tensor([0, 1, 2, 3, 3, 3, 3, 3]),
)


def test_without_focus_it_is_cross_entropy():
    torch.testing.assert_close(focal_cross_entropy(LOGITS, LABELS, gamma=0), F.cross_entropy(LOGITS, LABELS))


def test_focus_scales_each_region_by_what_is_missing():
    p = LOGITS.softmax(dim=1).gather(1, LABELS[:, None])[:, 0]
    wanted = -((1 - p) ** 0.5 * p.log()).mean()
    torch.testing.assert_close(focal_cross_entropy(LOGITS, LABELS, gamma=0.5), wanted)


def test_background_weight_touches_background_only():
    logits = LOGITS.clone().requires_grad_()
    grads = [
        torch.autograd.grad(focal_cross_entropy(logits, LABELS, background_weight=w), logits)[0]
        for w in (1.0, 0.2)
    ]
    torch.testing.assert_close(grads[1][:3], grads[0][:3])
    torch.testing.assert_close(grads[1][3:], 0.2 * grads[0][3:])


def test_the_weighted_form_divides_by_the_weights():
    wanted = F.cross_entropy(LOGITS, LABELS, weight=torch.tensor([1.0, 1, 1, 0.8]))
    torch.testing.assert_close(weighted_cross_entropy(LOGITS, LABELS, 0.8), wanted)


def test_no_regions_no_loss_and_no_nan():
    logits = torch.zeros(0, 4, requires_grad=True)
    none = torch.zeros(0, dtype=torch.long)
    for loss in (focal_cross_entropy(logits, none), weighted_cross_entropy(logits, none, 0.5)):
        assert loss == 0 and loss.requires_grad
    assert region_box_loss(torch.zeros(0, 4), torch.zeros(0, 4), none.bool()) == 0


def test_a_sure_region_has_a_finite_gradient():
    logits = torch.tensor([[200.0, 0, 0]], requires_grad=True)
    focal_cross_entropy(logits, torch.tensor([0]), gamma=0.5).backward()
    assert logits.grad.isfinite().all()


def test_box_loss_counts_all_regions():
    deltas, targets = torch.ones(4, 4), torch.zeros(4, 4)
    assert region_box_loss(deltas, targets, torch.tensor([True, False, False, False])) == 1


def test_distillation_is_zero_at_the_teacher():
    logits = torch.randn(5, 7)
    assert distillation_loss(logits, logits.softmax(dim=1)) == pytest.approx(0, abs=1e-6)
    assert distillation_loss(logits.flip(1), logits.softmax(dim=1)) > 0.1


def test_equal_concepts_are_all_positives():
    regions, labels = torch.randn(4, 8), torch.tensor([0, 1, 0, 2])
    pool = torch.randn(3, 8)
    loss = concept_contrastive_loss(regions, pool[labels], labels, 0.1)
    p = (F.normalize(regions, dim=1) @ F.normalize(pool[labels], dim=1).T / 0.1).softmax(dim=1)
    own = torch.stack([p[0, 0] + p[0, 2], p[1, 1], p[2, 0] + p[2, 2], p[3, 3]])
    torch.testing.assert_close(loss, -own.log().mean())


def test_images_and_their_captions():
    images = torch.eye(3)
    assert image_text_loss(images, images, 0.01) < 1e-6
    assert image_text_loss(images, images.roll(1, 0), 0.01) > 50
