"""Composes scenes: drawings, turned, recoloured and shadowed, on a texture, with exact masks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovseg.datasets.emoji.randomness import cosine, sine_of

__all__ = ["Pose", "Scene", "paste", "random_pose", "recolour"]

_ONE = 1 << 14  # fixed-point unit of the warp: 7 bits of it weigh pixels


@dataclass(frozen=True)
class Scene:
    """One composed scene.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        instances: (S, S) uint8: 0 where the texture shows, i where the i-th object does, counted from 1.
        words: The objects' words, as indices into the word table.
        texture: Index into the word table's textures.
    """

    image: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    words: tuple[int, ...]
    texture: int


@dataclass(frozen=True)
class Pose:
    """How a drawing lies in a scene.

    Attributes:
        x: Pixels from the left edge to its centre.
        y: Pixels from the top edge to its centre.
        width: Pixels; negative mirrors it.
        height: Pixels.
        degrees: Rotation.
        shear: Pixels it leans to the side per pixel of height.
    """

    x: float
    y: float
    width: float
    height: float
    degrees: float = 0
    shear: float = 0


def _spread(rng: np.random.RandomState, width: float) -> float:
    """A bell-shaped random number around 0, within 3 x ``width``, standard deviation ``width``."""
    a, b, c = rng.random_sample(3).tolist()
    return width * (2 * (a + b + c) - 3)


def random_pose(rng: np.random.RandomState, x: float, y: float, size: float, strength: float = 1) -> Pose:
    """A drawing of ``size`` pixels around (x, y), turned and stretched a little, mirrored half the time."""
    mirror = -1 if rng.random_sample() < 0.5 else 1
    return Pose(
        x, y,
        mirror * size * (1 + _spread(rng, 0.07) * strength),
        size * (1 + _spread(rng, 0.07) * strength),
        _spread(rng, 12) * strength,
        _spread(rng, 0.05) * strength,
    )  # fmt: skip


def recolour(drawing: NDArray[np.uint8], rng: np.random.RandomState) -> NDArray[np.uint8]:
    """Changes the colours of a premultiplied drawing (s, s, 4): gain, tint, saturation, brightness.

    Drawings of one word differ between artists in colour more than in form, so 6 % of them turn grey and a
    quarter are paled.
    """
    matrix = np.diag(1 + rng.uniform(-0.2, 0.2, 3)) * (1 + rng.uniform(-0.2, 0.2))
    matrix += rng.uniform(-0.09, 0.09, (3, 3))
    kind = rng.random_sample()
    if kind < 0.06:
        matrix = np.full((3, 3), 1 / 3)
    elif kind < 0.3:
        keep = rng.uniform(0.4, 1)
        matrix = matrix * keep + (1 - keep) / 3
    lift = rng.uniform(-0.1, 0.1)
    weights = matrix.astype(np.float32)
    red, green, blue, alpha = (drawing[..., i].astype(np.float32) for i in range(4))
    out = np.empty_like(drawing)
    for i, (r, g, b) in enumerate(weights):
        channel = red * r + green * g + blue * b + alpha * np.float32(lift)
        out[..., i] = np.rint(np.clip(channel, 0, alpha))
    out[..., 3] = drawing[..., 3]
    return out


def _inverse(pose: Pose, side: int) -> NDArray[np.int64]:
    """Fixed-point 2 x 2 matrix from scene pixels to pixels of a drawing of ``side`` pixels."""
    cos, sin = cosine(pose.degrees), sine_of(pose.degrees)
    sx, sy = pose.width / side, pose.height / side
    lean = pose.shear * abs(sx)
    a, b = cos * sx, cos * lean - sin * sy
    c, d = sin * sx, sin * lean + cos * sy
    determinant = a * d - b * c
    inverse = np.array([[d, -b], [-c, a]]) / determinant * _ONE
    return np.rint(inverse).astype(np.int64)


def _warped(drawing: NDArray[np.uint8], pose: Pose, size: int) -> tuple[NDArray[Any], tuple[slice, slice]]:
    """The drawing (s, s, 4) as it lies in a scene of ``size`` pixels, and the part of the scene it covers.

    Bilinear, in integers: the same on every machine, which no library's warp promises.
    """
    side = len(drawing)
    reach = 0.51 * math.hypot(pose.width, pose.height) * (1 + abs(pose.shear)) + 1
    top, left = (max(0, math.floor(c - reach)) for c in (pose.y, pose.x))
    bottom, right = (min(size, math.ceil(c + reach)) for c in (pose.y, pose.x))
    matrix = _inverse(pose, side)
    # offsets of pixel centres from the drawing's centre, in fixed point
    dy = np.arange(top, bottom, dtype=np.int64) * _ONE - round((pose.y - 0.5) * _ONE)
    dx = np.arange(left, right, dtype=np.int64) * _ONE - round((pose.x - 0.5) * _ONE)
    centre = ((side - 1) * _ONE) // 2
    u = ((matrix[0, 0] * dx[None] + matrix[0, 1] * dy[:, None]) >> 14) + centre
    v = ((matrix[1, 0] * dx[None] + matrix[1, 1] * dy[:, None]) >> 14) + centre
    padded = np.pad(drawing, ((1, 2), (1, 2), (0, 0))).astype(np.int32)
    iu = np.clip((u >> 14) + 1, 0, side + 1)
    iv = np.clip((v >> 14) + 1, 0, side + 1)
    fu = ((u & (_ONE - 1)) >> 7)[..., None].astype(np.int32)
    fv = ((v & (_ONE - 1)) >> 7)[..., None].astype(np.int32)
    flat = padded.reshape(-1, 4)
    at = iv * (side + 3) + iu
    upper = flat[at] * (128 - fu) + flat[at + 1] * fu
    lower = flat[at + side + 3] * (128 - fu) + flat[at + side + 4] * fu
    warped = (upper * (128 - fv) + lower * fv + (1 << 13)) >> 14
    return warped, (slice(top, bottom), slice(left, right))


def paste(
    image: NDArray[np.uint8],
    instances: NDArray[np.uint8],
    drawing: NDArray[np.uint8],
    pose: Pose,
    number: int,
    shadow: int = 0,
) -> None:
    """Draws into ``image`` (S, S, 3) and ``instances`` (S, S), in place.

    Args:
        image: RGB.
        instances: Numbers of the objects; pixels that the drawing covers by more than half get ``number``.
        drawing: (s, s, 4) premultiplied RGBA.
        pose: Where and how.
        number: Of the object.
        shadow: Pixels by which a soft shadow lies to the right and below; 0 draws none.
    """
    warped, window = _warped(drawing, pose, len(image))
    if not warped.size:
        return
    alpha = warped[..., 3:]
    under = image[window].astype(np.int32)
    if shadow:
        dark = np.zeros_like(alpha)
        dark[shadow:, shadow:] = alpha[:-shadow, :-shadow]
        under = under - 2 * under * _softened(dark) // (5 * 255)
    image[window] = np.minimum(warped[..., :3] + (under * (255 - alpha) + 127) // 255, 255)
    instances[window][alpha[..., 0] > 127] = number


def _softened(values: NDArray[Any]) -> NDArray[Any]:
    """3 x 3 binomial blur, twice, in integers."""
    for _ in range(2):
        for axis in (0, 1):
            values = (2 * values + np.roll(values, 1, axis) + np.roll(values, -1, axis) + 2) >> 2
    return values
