"""Where boxes come from: an RPN's output, ground truth, a file, or a grid."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ovseg._lazy import ops
from ovseg.regions.boxes import clip_boxes, rescale_boxes

__all__ = ["Proposals", "given_proposals", "grid_proposals", "read_proposals", "select_proposals"]


@dataclass(frozen=True)
class Proposals:
    """Boxes that may hold an object.

    Attributes:
        boxes: (N, 4) XYXY in pixels of the image that the network sees.
        logits: (N,) objectness before the sigmoid, or None where the source has none (ground truth, a grid).
            The logit is kept, as a sigmoid in float32 cannot be undone beyond 17.
    """

    boxes: Tensor
    logits: Tensor | None = None

    def __len__(self) -> int:
        """N."""
        return len(self.boxes)

    @property
    def objectness(self) -> Tensor | None:
        """(N,) probabilities."""
        return None if self.logits is None else self.logits.sigmoid()

    def __getitem__(self, chosen: Tensor) -> Proposals:
        """Those at the given indices or where a mask is true."""
        return Proposals(self.boxes[chosen], None if self.logits is None else self.logits[chosen])

    def rescaled(self, size: tuple[int, int], target: tuple[int, int]) -> Proposals:
        """In the pixels of the same image at another size; both (H, W)."""
        return replace(self, boxes=rescale_boxes(self.boxes, size, target))


def select_proposals(
    levels: Sequence[Proposals],
    size: tuple[int, int],
    *,
    before: int = 6000,
    threshold: float = 0.9,
    after: int = 1000,
) -> Proposals:
    """What leaves an RPN: the best boxes, without those that repeat better ones.

    Args:
        levels: Decoded boxes with objectness, of each level of a pyramid; NMS is within a level.
        size: (H, W) of the image; boxes are clipped to it and empty ones dropped.
        before: Most of a level that enter NMS.
        threshold: IoU above which a box repeats another (RegionCLIP: 0.9; detectors: 0.7).
        after: Most that leave.

    Raises:
        ValueError: There is no objectness to choose by.
    """
    kept = [_best(level, size, before) for level in levels]
    boxes = torch.cat([boxes for boxes, _ in kept])
    logits = torch.cat([logits for _, logits in kept])
    index = torch.cat([torch.full((len(x),), i, device=x.device) for i, (_, x) in enumerate(kept)])
    return Proposals(boxes, logits)[ops.batched_nms(boxes.float(), logits.float(), index, threshold)[:after]]


def _best(level: Proposals, size: tuple[int, int], count: int) -> tuple[Tensor, Tensor]:
    if level.logits is None:
        raise ValueError("these proposals have no objectness to choose by; use them all")
    logits, order = level.logits.sort(descending=True, stable=True)
    boxes = clip_boxes(level.boxes[order[:count]], size)
    real = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    return boxes[real], logits[:count][real]


def given_proposals(
    boxes: Tensor | np.ndarray | Sequence[Sequence[float]], scores: Tensor | np.ndarray | None = None
) -> Proposals:
    """Boxes from elsewhere: ground truth, another detector.

    Args:
        boxes: (N, 4) XYXY in pixels.
        scores: (N,) probabilities that there is an object, where known.

    Raises:
        ValueError: The shapes are wrong, a box has no area, or a score is no probability.
    """
    corners = torch.as_tensor(np.asarray(boxes), dtype=torch.float32)
    corners = corners.reshape(0, 4) if corners.numel() == 0 else corners
    if corners.ndim != 2 or corners.shape[1] != 4:
        raise ValueError(f"boxes are (N, 4): x1, y1, x2, y2 in pixels; got {tuple(corners.shape)}")
    wrong = ~((corners[:, 2:] > corners[:, :2]).all(dim=1) & corners.isfinite().all(dim=1))
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise ValueError(
            f"box {first} is {corners[first].tolist()}: x2 and y2 must be greater than x1 and y1 "
            f"(boxes given as x, y, width, height?)"
        )
    if scores is None:
        return Proposals(corners)
    values = torch.as_tensor(np.asarray(scores), dtype=torch.float64).reshape(-1)
    if len(values) != len(corners) or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"{len(corners)} boxes need as many scores, each from 0 to 1")
    return Proposals(corners, values.logit(eps=1e-12).float())


def read_proposals(path: str | os.PathLike[str]) -> Proposals:
    """Proposals of one image in an ``.npz`` file with ``boxes`` (N, 4) and, where known, ``scores`` (N,).

    Raises:
        ValueError: It is no such file, or its boxes are wrong.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        boxes = arrays["boxes"]
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever zipfile and numpy raise on a damaged file
        raise ValueError(f"{os.fspath(path)} is no .npz file with an array 'boxes' ({error})") from error
    return given_proposals(boxes, arrays.get("scores"))


def grid_proposals(
    size: tuple[int, int],
    *,
    sides: Sequence[float] = (0.2, 0.35, 0.6, 1.0),
    ratios: Sequence[float] = (0.5, 1.0, 2.0),
    overlap: float = 0.5,
) -> Proposals:
    """Boxes of several sizes and shapes all over the image: what there is without any localiser.

    Args:
        size: (H, W) of the image in pixels.
        sides: Square roots of the boxes' areas, in fractions of the image's.
        ratios: Heights over widths.
        overlap: Of neighbours, 0 to less than 1, in each direction.
    """
    height, width = size
    boxes: list[tuple[float, float, float, float]] = []
    for side in sides:
        for ratio in ratios:
            area = side * (height * width) ** 0.5
            h, w = min(area * ratio**0.5, height), min(area / ratio**0.5, width)
            boxes += [
                (x, y, x + w, y + h) for y in _starts(height, h, overlap) for x in _starts(width, w, overlap)
            ]
    return Proposals(torch.tensor(list(dict.fromkeys(boxes)), dtype=torch.float32))


def _starts(length: float, side: float, overlap: float) -> list[float]:
    """Evenly spaced from edge to edge."""
    count = 1 + int(np.ceil((length - side) / (side * (1 - overlap)) - 1e-9))
    return np.linspace(0, length - side, count).tolist()
