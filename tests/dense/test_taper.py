"""Overlapping windows with tapered weights: no edge shows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ovseg.dense.score_field import ScoreField
from ovseg.dense.windows import Pad, slide


def _weight(length: int) -> torch.Tensor:
    place = torch.arange(length) + 0.5
    return torch.minimum(place, length - place)


def _naive(scores: torch.Tensor, grid) -> torch.Tensor:
    """Every window upsampled and weighted by a pyramid, at full size."""
    total, weights = torch.zeros(scores.shape[1], *grid.size), torch.zeros(grid.size)
    for window, (top, left, bottom, right) in zip(scores, grid.boxes()):
        weight = _weight(bottom - top)[:, None] * _weight(right - left)
        full = torch.nn.functional.interpolate(window[None], grid.crop, mode="bilinear", align_corners=False)[
            0
        ]
        total[:, top:bottom, left:right] += full * weight
        weights[top:bottom, left:right] += weight
    return total / weights


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    crop=st.sampled_from([8, 16]),
    stride=st.integers(3, 8),
    seed=st.integers(0, 99),
)
def test_equals_the_naive_way(size, crop, stride, seed):
    grid = slide(size, crop, stride, taper=True)
    scores = torch.randn(len(grid), 2, 4, 4, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(ScoreField.from_windows(scores, grid).full(), _naive(scores, grid))


@pytest.mark.parametrize("activation", [None, "sigmoid", "softmax"])
def test_no_edge_shows_where_windows_disagree(activation):
    size, crop, stride = (64, 96), 32, 16
    steps = []
    for taper in (False, True):
        grid = slide(size, crop, stride, taper=taper)
        level = (
            torch.arange(len(grid)).float().view(-1, 1, 1, 1) % 3 * torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)
        )
        field = ScoreField.from_windows(level.expand(-1, -1, 2, 2), grid, activation=activation)
        full = field.full()
        steps.append(
            max((full[:, 1:] - full[:, :-1]).abs().max(), (full[:, :, 1:] - full[:, :, :-1]).abs().max())
        )
    assert steps[1] < steps[0] / 4


def test_windows_that_agree_are_one_pass():
    ramp = torch.linspace(0, 1, 64)
    grid = slide((16, 64), (16, 32), (16, 8), taper=True)
    # cells of 2 pixels whose values are the ramp's: away from borders all windows say the same
    scores = torch.stack([ramp[left : left + 32].view(16, 2).mean(dim=1) for left in grid.lefts])
    field = ScoreField.from_windows(scores.view(-1, 1, 1, 16).expand(-1, 1, 8, 16), grid)
    torch.testing.assert_close(field.full()[0, 8, 2:-2], ramp[2:-2], atol=1e-2, rtol=0)


def test_padded_windows_taper_over_what_counts():
    grid = slide((20, 20), 10, 5, Pad(8), taper=True)
    ones = torch.ones(len(grid), 1, 2, 2)
    torch.testing.assert_close(ScoreField.from_windows(ones, grid).full(), torch.ones(1, 20, 20))
