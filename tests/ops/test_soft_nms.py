from __future__ import annotations

import pytest
import torch
from torchvision.ops import box_iou, nms

from ovseg.ops.soft_nms import soft_nms


def some_boxes(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 50
    size = 5 + torch.rand(count, 2, generator=generator) * 40
    return torch.cat([corner, corner + size], dim=1), torch.rand(count, generator=generator)


def naive(boxes, scores, decay, min_score):
    """The paper's figure 2, one box at a time."""
    left = {i: float(s) for i, s in enumerate(scores)}
    out = []
    while left:
        best = max(left, key=left.get)
        out.append((best, left.pop(best)))
        for other in list(left):
            left[other] *= decay(float(box_iou(boxes[best][None], boxes[other][None])))
            if left[other] < min_score:
                del left[other]
    return out


@pytest.mark.parametrize(
    ("method", "decay"),
    [
        ("gaussian", lambda iou: 2.718281828459045 ** (-(iou**2) / 0.5)),
        ("linear", lambda iou: 1 - iou if iou >= 0.3 else 1),
    ],
)
def test_equals_the_loop_of_the_paper(method, decay):
    boxes, scores = some_boxes(30)
    kept, final = soft_nms(boxes, scores, method=method, sigma=0.5, iou_threshold=0.3, min_score=0.05)
    wanted = naive(boxes, scores, decay, 0.05)
    assert kept.tolist() == [i for i, _ in wanted]
    torch.testing.assert_close(final, torch.tensor([s for _, s in wanted]), atol=1e-5, rtol=1e-5)
    assert len(kept) < 30


def test_naive_is_ordinary_nms():
    boxes, scores = some_boxes(40, seed=1)
    kept, final = soft_nms(boxes, scores, method="naive", iou_threshold=0.4, min_score=1e-6)
    assert kept.tolist() == nms(boxes, scores, 0.4).tolist()
    assert torch.equal(final, scores[kept])


def test_nothing_in_nothing_out():
    kept, final = soft_nms(torch.zeros(0, 4), torch.zeros(0))
    assert kept.shape == final.shape == (0,)
