"""PAMR: properties of its definition, and words refined in blocks."""

from __future__ import annotations

import pytest
import torch

from ovseg.dense import pamr as module
from ovseg.dense.pamr import Refined, _Whole, pamr, pamr_affinity


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


def test_words_in_chunks(monkeypatch):
    affinity, scores = pamr_affinity(torch.rand(3, 9, 11), (1, 2)), torch.rand(7, 9, 11)
    whole = pamr(scores, affinity, (1, 2), 3)
    monkeypatch.setattr(module, "_WORDS", 3)
    torch.testing.assert_close(pamr(scores, affinity, (1, 2), 3), whole)
    assert pamr(scores[:0], affinity, (1, 2), 3).shape == (0, 9, 11)


@pytest.mark.parametrize("dilations", [(1, 12), (3,), (4, 8), (6, 9)])
@pytest.mark.parametrize("size", [(9, 11), (1, 7), (2, 2), (16, 24), (17, 25), (31, 20)])
@pytest.mark.parametrize("pixels", [None, 1, 60])
def test_blocks_do_what_shifts_do(dilations, size, pixels, monkeypatch):
    """In one block, one for each phase, and several phases in one."""
    if pixels is not None:
        monkeypatch.setattr(module, "_SMALL", 0)
        monkeypatch.setattr(module, "_BLOCK_PIXELS", pixels)
    affinity, scores = pamr_affinity(torch.rand(3, *size), dilations), torch.rand(4, *size)
    shifted = module._by_shifts(scores, affinity, dilations, 3)
    torch.testing.assert_close(pamr(scores, affinity, dilations, 3), shifted)


def test_blocks_partition_the_picture_and_come_in_any_order(monkeypatch):
    monkeypatch.setattr(module, "_SMALL", 0)
    affinity, scores = pamr_affinity(torch.rand(3, 21, 30), (4, 8)), torch.rand(5, 21, 30)
    expected = module._by_shifts(scores, affinity, (4, 8), 4)
    blocks = list(Refined(_Whole(scores), affinity, (4, 8), 4).blocks())
    assert len(blocks) == 16
    covered = torch.zeros(21, 30)
    for rows, cols in blocks:
        covered[rows, cols] += 1
    assert (covered == 1).all()
    refined = Refined(_Whole(scores), affinity, (4, 8), 4)
    for rows, cols in reversed(blocks):
        for words in (slice(2, 5), slice(0, 2), slice(0, 5)):
            torch.testing.assert_close(refined.tile(rows, cols, words), expected[words, rows, cols])
    part = refined.tile(slice(3, 9), slice(0, 7), slice(1, 4))
    torch.testing.assert_close(part, expected[1:4, 3:9, :7])


def test_in_the_usual_order_each_block_is_computed_once(monkeypatch):
    monkeypatch.setattr(module, "_SMALL", 0)
    monkeypatch.setattr(module, "_BLOCK_PIXELS", 1)
    solved = []
    rounds = Refined._rounds
    monkeypatch.setattr(
        Refined, "_rounds", lambda self, *args: solved.append(args[:2]) or rounds(self, *args)
    )
    scores = torch.rand(2, 32, 24)
    refined = Refined(_Whole(scores), pamr_affinity(torch.rand(3, 32, 24), (4, 8)), (4, 8), 2)
    for rows, cols in refined.blocks():
        refined.tile(rows, cols, slice(0, 2))
    assert len(solved) == len(set(solved)) == 9  # of four phases along an axis the first and last are one


def test_a_border_too_large_to_keep_makes_one_block(monkeypatch):
    monkeypatch.setattr(module, "_SMALL", 0)
    monkeypatch.setattr(module, "_BORDER_ELEMENTS", 10)
    scores = torch.rand(2, 32, 24)
    refined = Refined(_Whole(scores), pamr_affinity(torch.rand(3, 32, 24), (4, 8)), (4, 8), 2)
    assert len(list(refined.blocks())) == 1
