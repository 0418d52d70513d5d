"""PAMR: properties of its definition, and words refined in blocks."""

from __future__ import annotations

import torch

from ovseg.dense import pamr as module
from ovseg.dense.pamr import pamr, pamr_affinity


def test_weights_sum_to_one_and_are_equal_on_a_plain_picture():
    weights = pamr_affinity(torch.rand(3, 9, 11), (1, 3))
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(9, 11))
    plain = pamr_affinity(torch.full((3, 9, 11), 0.3), (1, 3))
    torch.testing.assert_close(plain, torch.full((16, 9, 11), 1 / 16))


def test_constants_stay_and_scores_do_not_cross_an_edge():
    image = torch.zeros(3, 8, 12)
    image[:, :, 6:] = 1
    affinity = pamr_affinity(image, (1,))
    assert torch.allclose(pamr(torch.ones(1, 8, 12), affinity, (1,), 5), torch.ones(1, 8, 12))
    scores = torch.zeros(1, 8, 12)
    scores[:, :, :6] = 1
    refined = pamr(scores, affinity, (1,), 5)
    assert refined[0, :, 5].min() > 0.75
    assert refined[0, :, 6].max() < 0.25


def test_words_in_blocks(monkeypatch):
    affinity, scores = pamr_affinity(torch.rand(3, 9, 11), (1, 2)), torch.rand(7, 9, 11)
    whole = pamr(scores, affinity, (1, 2), 3)
    monkeypatch.setattr(module, "_BLOCK_ELEMENTS", 3 * 99)
    assert torch.equal(pamr(scores, affinity, (1, 2), 3), whole)
    assert pamr(scores[:0], affinity, (1, 2), 3).shape == (0, 9, 11)
