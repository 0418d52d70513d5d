"""A ScoreField's tiles against upsampling everything."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ovseg.dense import score_field
from ovseg.dense.score_field import Layer, ScoreField
from ovseg.dense.windows import Pad, slide


def naive(scores, grid, output, activation=None):
    """Every window upsampled, activated, summed on a canvas, divided by the count, resized."""
    canvas = torch.zeros(scores.shape[1], *grid.size)
    count = torch.zeros(grid.size)
    for window, (top, left, bottom, right) in zip(scores, grid.boxes()):
        height, width = bottom - top, right - left
        y = x = 0
        size = height, width
        if grid.pad:
            y, x = grid.pad.before(height), grid.pad.before(width)
            size = height + grid.pad.total(height), width + grid.pad.total(width)
        up = F.interpolate(window[None], size, mode="bilinear", align_corners=False)[0]
        up = up[:, y : y + height, x : x + width]
        if activation == "sigmoid":
            up = up.sigmoid()
        elif activation == "softmax":
            up = up.softmax(dim=0)
        canvas[:, top:bottom, left:right] += up
        count[top:bottom, left:right] += 1
    return F.interpolate((canvas / count)[None], output, mode="bilinear", align_corners=False)[0]


CASES = [
    ((100, 140), None, None, None, (100, 140)),
    ((101, 143), 64, 40, None, (77, 201)),
    ((60, 150), 64, 33, Pad(16, "centre"), (120, 301)),
    ((97, 130), 50, 30, Pad(16), (97, 130)),
    ((33, 33), 32, 32, None, (1, 1)),
]


@pytest.mark.parametrize("activation", [None, "sigmoid", "softmax"])
@pytest.mark.parametrize(("size", "crop", "stride", "pad", "output"), CASES)
def test_equals_upsampling_everything(size, crop, stride, pad, output, activation):
    torch.manual_seed(0)
    grid = slide(size, crop, stride, pad)
    scores = 3 * torch.randn(len(grid), 7, 4, 5)
    field = ScoreField.from_windows(scores, grid, output, activation)
    expected = naive(scores, grid, output, activation)
    torch.testing.assert_close(field.full(), expected, atol=3e-6, rtol=0)
    rows, cols = slice(output[0] // 3, output[0]), slice(0, max(output[1] // 2, 1))
    part = field.tile(rows, cols, slice(2, 5))
    torch.testing.assert_close(part, expected[2:5, rows, cols], atol=3e-6, rtol=0)


@pytest.mark.parametrize("activation", [None, "sigmoid"])
@pytest.mark.parametrize(("size", "crop", "stride", "pad", "output"), CASES)
def test_no_winner_is_left_out(size, crop, stride, pad, output, activation):
    torch.manual_seed(0)
    grid = slide(size, crop, stride, pad)
    scores = torch.randn(len(grid), 40, 4, 5) + torch.randn(40, 1, 1)
    scores[:, 30] = scores[:, 7] = scores.mean(dim=1) + 0.9  # equal words: the first wins
    field = ScoreField.from_windows(scores, grid, output, activation)
    full = field.full()
    value, word = field.winners()
    expected = full.max(dim=0).values
    torch.testing.assert_close(value, expected, atol=1e-5, rtol=0)
    assert torch.equal(full.gather(0, word[None])[0], expected)
    assert 30 not in word
    numbers = torch.arange(40, 0, -1, dtype=torch.int16)
    assert torch.equal(field.winners(numbers)[1], numbers[word])


@pytest.mark.parametrize("lead", [0.0, 5.0])
def test_winners_of_several_bands(lead, monkeypatch):
    """Where hardly a word can be left out, comparing stops after the first band."""
    torch.manual_seed(0)
    scores = torch.randn(1, 40, 20, 12)
    scores[:, 11] += lead
    field = ScoreField.from_windows(scores, slide((320, 192)))
    full = field.full()
    kinds = [some is None for _, _, some in field._contests()]
    assert not kinds[0] and kinds[-1] == (lead == 0)
    for elements in (1 << 20, 1 << 10):
        monkeypatch.setattr(score_field, "_WINNERS_ELEMENTS", elements)
        value, word = field.winners()
        torch.testing.assert_close(value, full.amax(dim=0))
        torch.testing.assert_close(full.gather(0, word[None])[0], value)


def test_of_words_that_are_equal_at_some_cells_the_first_wins():
    scores = torch.zeros(1, 40, 4, 4)
    scores[:, 7] = scores[:, 3] = 1
    scores[:, 3, 2:] = 0.5  # word 7 has the greatest mean, but at the upper border both are equal
    field = ScoreField.from_windows(scores, slide((64, 64)))
    word = field.winners()[1]
    assert torch.equal(word, field.full().max(dim=0).indices)
    assert (word[0] == 3).all() and (word[-1] == 7).all()


def test_numbers_that_are_none_leave_something():
    grid = slide((64, 64))
    scores = torch.randn(1, 40, 4, 4)
    scores[:, 3] = torch.nan
    field = ScoreField.from_windows(scores, grid)
    assert field.winners()[1].shape == (64, 64)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 60), st.data())
def test_windows_need_not_lie_on_the_patch_grid(height, width, crop, data):
    few = max(height, width) // 6 + 1  # keeps the number of windows small
    crop = max(crop, few)
    stride = data.draw(st.integers(few, crop))
    output = data.draw(st.tuples(st.integers(1, 120), st.integers(1, 120)))
    cells = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    grid = slide((height, width), crop, stride)
    scores = torch.rand(len(grid), 2, *cells)
    field = ScoreField.from_windows(scores, grid, output)
    torch.testing.assert_close(field.full(), naive(scores, grid, output), atol=3e-6, rtol=0)


def test_a_global_view_is_a_second_layer():
    torch.manual_seed(0)
    grid, whole = slide((96, 96), 64, 32), slide((96, 96))
    windows, view = torch.randn(len(grid), 3, 4, 4), torch.randn(1, 3, 4, 4)
    layers = (
        Layer(windows.unflatten(0, (len(grid.tops), len(grid.lefts))), *grid.spans()),
        Layer(view[None], *whole.spans()),
    )
    field = ScoreField(layers, (96, 96), (130, 50), "sigmoid")
    first, second = (naive(s, g, (96, 96), "sigmoid") for s, g in ((windows, grid), (view, whole)))
    expected = F.interpolate(((first + second) / 2)[None], (130, 50), mode="bilinear")[0]
    torch.testing.assert_close(field.full(), expected, atol=3e-6, rtol=0)


@pytest.mark.parametrize("words", [1, 21, 3000])
def test_blocks_partition_the_output(words):
    grid = slide((70, 900))
    field = ScoreField.from_windows(torch.zeros(1, words, 2, 2), grid)
    seen = torch.zeros(70, 900, dtype=torch.int32)
    for rows, cols in field.blocks():
        seen[rows, cols] += 1
    assert (seen == 1).all()


def test_an_uncovered_pixel_is_refused():
    grid = slide((32, 32), 16, 16)
    scores = torch.zeros(1, len(grid.lefts), 2, 2, 2)
    with pytest.raises(ValueError, match="cover the whole image"):
        ScoreField((Layer(scores, grid.spans()[0][:1], grid.spans()[1]),), (32, 32), (32, 32))
