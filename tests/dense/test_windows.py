"""Window placement and padding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ovseg.dense.windows import Pad, slide, window_starts


@pytest.mark.parametrize(
    ("size", "crop", "stride", "starts"),
    [
        (224, 224, 112, (0,)),  # as large as the window
        (225, 224, 112, (0, 1)),  # the second is moved inwards
        (100, 224, 112, (0,)),  # smaller: the whole side
        (448, 224, 112, (0, 112, 224)),
        (500, 224, 112, (0, 112, 224, 276)),
        (10, 1, 1, tuple(range(10))),
    ],
)
def test_starts(size, crop, stride, starts):
    assert window_starts(size, crop, stride) == starts


@given(st.integers(1, 400), st.integers(1, 100), st.data())
def test_windows_cover_every_pixel_and_stay_inside(size, crop, data):
    stride = data.draw(st.integers(1, crop))
    starts = window_starts(size, crop, stride)
    covered = {pixel for start in starts for pixel in range(start, start + min(crop, size))}
    assert covered == set(range(size))


@pytest.mark.parametrize("stride", [0, -1, 65])
def test_a_stride_that_skips_pixels_is_refused(stride):
    with pytest.raises(ValueError, match="stride must lie between 1 and the window size 64"):
        slide((100, 100), 64, stride)


def test_grid_order_and_clipping():
    grid = slide((50, 150), 64, 43)
    assert grid.crop == (50, 64)
    assert list(grid.boxes()) == [(0, 0, 50, 64), (0, 43, 50, 107), (0, 86, 50, 150)]


def test_pad_sides():
    image = torch.ones(1, 3, 5, 4)
    corner, centre = Pad(4)(image), Pad(4, "centre")(image)
    assert corner.shape == centre.shape == (1, 3, 8, 4)
    assert corner[0, 0, :, 0].tolist() == [1, 1, 1, 1, 1, 0, 0, 0]
    assert centre[0, 0, :, 0].tolist() == [0, 1, 1, 1, 1, 1, 0, 0]
    assert Pad(5)(torch.ones(3, 5, 5)).shape == (3, 5, 5)
