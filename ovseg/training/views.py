"""Views of images for self-supervised training: crops that remember where they lie, in changed colours."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["View", "change_colours", "random_view"]


@dataclass(frozen=True)
class View:
    """A square crop of each image of a batch.

    Attributes:
        image: (B, 3, s, s).
        corner: (B, 2) its left and upper side, as shares of the image.
        side: (B,) its side, likewise.
        flipped: (B,) bool, whether it is mirrored.
    """

    image: Tensor
    corner: Tensor
    side: Tensor
    flipped: Tensor

    def points(self, count: int) -> Tensor:
        """(B, n, n, 2) x and y of a grid of points in each view, as shares of the image."""
        return _points(self.corner, self.side, self.flipped, count)

    def read(self, maps: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, C, g, g) that belong to the view, read where points (B, n, n, 2) of the image lie in it.

        Returns:
            (B, C, n, n) values, bilinear; (B, n, n) bool, whether the point lies in the view.
        """
        within = (points - self.corner[:, None, None]) / self.side[:, None, None, None]
        x = torch.where(self.flipped[:, None, None], 1 - within[..., 0], within[..., 0])
        within = torch.stack([x, within[..., 1]], dim=3)
        inside = ((within >= 0) & (within <= 1)).all(dim=3)
        values = F.grid_sample(maps, 2 * within - 1, padding_mode="border", align_corners=False)
        return values, inside


def random_view(
    image01: Tensor, size: int, sides: tuple[float, float], strength: float, generator: torch.Generator
) -> View:
    """A view of each image.

    Args:
        image01: (B, 3, S, S) in [0, 1].
        size: Pixels of the view's side.
        sides: Least and largest side of the crop, as a share of the image's.
        strength: Of the change of colours, see ``change_colours``.
        generator: Source of every choice.
    """
    count = len(image01)
    side = sides[0] + (sides[1] - sides[0]) * torch.rand(count, generator=generator)
    corner = torch.rand(count, 2, generator=generator) * (1 - side[:, None])
    flipped = torch.rand(count, generator=generator) < 0.5
    points = _points(corner, side, flipped, size)
    crop = F.grid_sample(image01, 2 * points - 1, padding_mode="reflection", align_corners=False)
    return View(change_colours(crop, strength, generator), corner, side, flipped)


def _points(corner: Tensor, side: Tensor, flipped: Tensor, count: int) -> Tensor:
    steps = (torch.arange(count) + 0.5) / count
    x = torch.where(flipped[:, None], 1 - steps, steps) * side[:, None] + corner[:, :1]  # (B, n)
    y = steps * side[:, None] + corner[:, 1:]
    return torch.stack([x[:, None].expand(-1, count, -1), y[:, :, None].expand(-1, -1, count)], dim=3)


def change_colours(image01: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Turns hues, changes saturation, contrast and brightness, and adds noise; a few images turn grey.

    Args:
        image01: (B, 3, H, W) in [0, 1].
        strength: 0 changes nothing, 1 is strong.
        generator: Source of every choice.
    """
    count = len(image01)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    angle = uniform(-0.8, 0.8) * strength
    grey = torch.rand(count, generator=generator) < 0.15 * strength
    saturation = torch.where(grey, 0, 1 + uniform(-0.6, 0.4) * strength)
    contrast, shift = 1 + uniform(-0.4, 0.4) * strength, uniform(-0.15, 0.15) * strength
    matrix = saturation[:, None, None] * _turns(angle)
    matrix = contrast[:, None, None] * (matrix + (1 - saturation)[:, None, None] / 3)
    offset = 0.5 * (1 - contrast) + shift
    changed = (matrix @ image01.flatten(2) + offset[:, None, None]).view_as(image01)
    amplitude = 0.03 * strength * uniform(0, 1)
    noise = torch.randn(changed.shape, generator=generator) * amplitude[:, None, None, None]
    return (changed + noise).clamp(0, 1)


def _turns(angle: Tensor) -> Tensor:
    """(B, 3, 3) rotations about the axis of greys."""
    axis = torch.full((3,), 1 / math.sqrt(3))
    cross = torch.linalg.cross(torch.eye(3), axis.expand(3, 3))
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return cos * torch.eye(3) + sin * cross + (1 - cos) * torch.outer(axis, axis)
