from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ovseg.regions.boxes import clip_boxes, decode_boxes, encode_boxes, rescale_boxes
from ovseg.regions.proposals import (
    Proposals,
    given_proposals,
    grid_proposals,
    read_proposals,
    select_proposals,
)

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
corner = st.floats(0, 200)
side = st.floats(2, 150)
box = st.tuples(corner, corner, side, side).map(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]])


@settings(max_examples=30, deadline=None)
@given(box, box)
def test_decoding_undoes_encoding(source, target):
    source, target = (torch.tensor([b], dtype=torch.float64) for b in (source, target))
    deltas = encode_boxes(source, target, WEIGHTS)
    if deltas[:, 2:].max() < 5 * 4:  # log scales beyond 1000 / 16 are held down
        torch.testing.assert_close(decode_boxes(source, deltas, WEIGHTS), target, atol=1e-6, rtol=1e-6)


def test_a_known_delta():
    moved = decode_boxes(
        torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[1.0, -1, 0, 5 * 0.6931472]]), WEIGHTS
    )
    torch.testing.assert_close(
        moved, torch.tensor([[1.0, -12, 11, 28]])
    )  # right by 1, up by 2, twice as high


def test_a_wild_delta_does_not_overflow():
    assert decode_boxes(torch.tensor([[0.0, 0, 10, 10]]), torch.full((1, 4), 1e4), WEIGHTS).isfinite().all()


def test_clipping_and_rescaling():
    boxes = torch.tensor([[-5.0, 3, 30, 50]])
    assert clip_boxes(boxes, (40, 20)).tolist() == [[0, 3, 20, 40]]
    assert rescale_boxes(boxes, (40, 20), (80, 60)).tolist() == [[-15, 6, 90, 100]]


def test_the_best_boxes_without_repetition():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9.5], [20, 20, 30, 30], [50, 0, 60, 10], [5, 5, 5, 9]])
    chosen = select_proposals(
        [Proposals(boxes, torch.tensor([1.0, 2.0, -3.0, 0.5, 9.0]))], (40, 40), threshold=0.9, after=2
    )
    assert chosen.boxes.tolist() == [
        [0, 0, 10, 9.5],
        [20, 20, 30, 30],
    ]  # one repeats, one is outside, one is empty
    assert chosen.logits.tolist() == [2, -3]
    few = select_proposals([Proposals(boxes[:3], torch.tensor([1.0, 2, 3]))], (40, 40), before=1)
    assert few.boxes.tolist() == [[20, 20, 30, 30]]
    levels = [Proposals(boxes[:1], torch.tensor([1.0])), Proposals(boxes[1:3], torch.tensor([2.0, 3.0]))]
    assert len(select_proposals(levels, (40, 40))) == 3  # boxes repeat those of their own level only
    with pytest.raises(ValueError, match="no objectness"):
        select_proposals([Proposals(boxes)], (40, 40))


def test_given_boxes_are_checked():
    proposals = given_proposals([[0, 0, 2, 2]], np.array([0.25]))
    torch.testing.assert_close(proposals.objectness, torch.tensor([0.25]))
    assert len(given_proposals([])) == 0
    with pytest.raises(ValueError, match="x, y, width, height"):
        given_proposals([[0, 0, 2, 2], [50, 40, 10, 10]])
    with pytest.raises(ValueError, match="x1, y1, x2, y2"):
        given_proposals([[0, 0, 2]])
    with pytest.raises(ValueError, match="each from 0 to 1"):
        given_proposals([[0, 0, 2, 2]], [3.0])


def test_a_file_of_boxes(tmp_path):
    np.savez(tmp_path / "a.npz", boxes=[[1, 2, 3, 4]], scores=[0.5])
    proposals = read_proposals(tmp_path / "a.npz")
    assert proposals.boxes.tolist() == [[1, 2, 3, 4]] and proposals.logits.tolist() == [0]
    np.savez(tmp_path / "b.npz", box=[[1, 2, 3, 4]])
    (tmp_path / "c.npz").write_text("no zip")
    for name in ("b.npz", "c.npz"):
        with pytest.raises(ValueError, match=f"{name} is no .npz file with an array 'boxes'"):
            read_proposals(tmp_path / name)


@settings(max_examples=30, deadline=None)
@given(st.integers(8, 400), st.integers(8, 400))
def test_a_grid_covers_the_image(height, width):
    boxes = grid_proposals((height, width)).boxes
    assert len(boxes.unique(dim=0)) == len(boxes) < 2000
    assert (boxes >= 0).all() and boxes[:, 2].max() <= width + 1e-3 and boxes[:, 3].max() <= height + 1e-3
    points = torch.rand(50, 2) * torch.tensor([width, height])
    inside = ((points[:, None] >= boxes[:, :2]) & (points[:, None] <= boxes[:, 2:])).all(dim=2)
    assert inside.sum(dim=1).min() >= 4  # at several sizes
