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


def test_weights_equal_their_definition():
    """Araslanov and Roth's: the deviation over all pixels of the windows, the centre in each."""
    image, (y, x) = torch.randn(3, 9, 11), (3, 10)
    windows = []
    for dilation in (1, 4):
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                windows.append(
                    image[:, min(max(y + dy * dilation, 0), 8), min(max(x + dx * dilation, 0), 10)]
                )
    spread = torch.stack(windows).std(dim=0)
    near = [pixel for i, pixel in enumerate(windows) if i % 9 != 4]
    logits = torch.stack([-((image[:, y, x] - pixel).abs() / (1e-8 + 0.1 * spread)).mean() for pixel in near])
    torch.testing.assert_close(pamr_affinity(image, (1, 4))[:, y, x], logits.softmax(dim=0))


def test_words_in_blocks(monkeypatch):
    affinity, scores = pamr_affinity(torch.rand(3, 9, 11), (1, 2)), torch.rand(7, 9, 11)
    whole = pamr(scores, affinity, (1, 2), 3)
    monkeypatch.setattr(module, "_WORDS", 3)
    torch.testing.assert_close(pamr(scores, affinity, (1, 2), 3), whole)
    assert pamr(scores[:0], affinity, (1, 2), 3).shape == (0, 9, 11)


def test_a_matrix_does_what_shifts_do():
    affinity, scores = pamr_affinity(torch.rand(3, 9, 11), (1, 12)), torch.rand(4, 9, 11)
    shifted = module._by_shifts(scores, affinity, (1, 12), 3)
    torch.testing.assert_close(pamr(scores, affinity, (1, 12), 3), shifted)
