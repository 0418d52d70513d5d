"""Procedural textures: what the scenes of EmojiScenes stand on. Each is drawn by one function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovseg.datasets.emoji.randomness import cosine, random_state, sine, sine_of

__all__ = ["TEXTURES", "TextureBank", "draw_texture"]

Field = NDArray[Any]  # float32: (S, S) in 0..1 or (S, S, 3) in 0..255
Painter = Callable[[np.random.RandomState, int], Field]


def _noise(rng: np.random.RandomState, size: int) -> Field:
    return rng.random_sample((size, size)).astype(np.float32)


def _grid(size: int) -> tuple[Field, Field]:
    """Row and column number of every pixel."""
    line = np.arange(size, dtype=np.float32)
    return np.repeat(line[:, None], size, 1), np.repeat(line[None], size, 0)


def _stretch(values: Field) -> Field:
    """Scaled to 0..1."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low + np.float32(1e-6))


def _upsampled(lattice: Field, size: int) -> Field:
    """A lattice (n, m) blended smoothly over size x size pixels."""
    rows, y = _cells(lattice.shape[0], size)
    cols, x = _cells(lattice.shape[1], size)
    top = lattice[rows][:, cols] * (1 - x) + lattice[rows][:, cols + 1] * x
    bottom = lattice[rows + 1][:, cols] * (1 - x) + lattice[rows + 1][:, cols + 1] * x
    return top * (1 - y[:, None]) + bottom * y[:, None]


def _cells(n: int, size: int) -> tuple[NDArray[np.int64], Field]:
    """Index of the lattice cell of each pixel and the smoothed position in it."""
    at = (np.arange(size, dtype=np.float32) + 0.5) * np.float32((n - 1) / size)
    cell = np.minimum(at.astype(np.int64), n - 2)
    t = at - cell.astype(np.float32)
    return cell, t * t * (3 - 2 * t)


def _clouds(
    rng: np.random.RandomState, size: int, octaves: int = 5, wide: float = 1, high: float = 1
) -> Field:
    """Fractal noise in 0..1; more lattice points across (``wide``) or down (``high``) stretch it."""
    total = np.zeros((size, size), np.float32)
    for k in range(octaves):
        n = 2 ** (k + 1)
        shape = (max(2, int(n * high)) + 1, max(2, int(n * wide)) + 1)
        total += _upsampled(rng.random_sample(shape).astype(np.float32), size) / np.float32(2**k)
    return _stretch(total)


def _blurred(values: Field, rounds: int = 1) -> Field:
    """A 3 x 3 binomial blur, as often as asked."""
    for _ in range(rounds):
        for axis in (0, 1):
            before, after = np.roll(values, 1, axis), np.roll(values, -1, axis)
            values = values * np.float32(0.5) + (before + after) * np.float32(0.25)
    return values


def _mix(share: Field, a: Field, b: Field) -> Field:
    """Colour ``a`` where ``share`` is 1, ``b`` where it is 0: (S, S, 3)."""
    share = np.clip(share, 0, 1)[..., None]
    return share * a + (1 - share) * b


def _near(rng: np.random.RandomState, *colour: float, spread: float = 18) -> Field:
    """A colour near the given one."""
    return np.clip(np.array(colour) + rng.uniform(-spread, spread, 3), 0, 255).astype(np.float32)


def _any_colour(rng: np.random.RandomState) -> Field:
    return rng.uniform(0, 255, 3).astype(np.float32)


def _turned(rng: np.random.RandomState, image: Field) -> Field:
    """Turned by 90 degrees half of the time."""
    return image.transpose(1, 0, 2) if rng.random_sample() < 0.5 else image


def _grass(rng: np.random.RandomState, size: int) -> Field:
    blades = _noise(rng, size)
    blades = (blades + np.roll(blades, 1, 0) + np.roll(blades, 2, 0) + np.roll(blades, 3, 0)) / 4
    share = np.float32(0.77) * blades - np.float32(0.1) + np.float32(0.45) * _clouds(rng, size)
    return _mix(share, _near(rng, 120, 190, 70), _near(rng, 30, 95, 25))


def _sand(rng: np.random.RandomState, size: int) -> Field:
    y, _ = _grid(size)
    ripples = sine(y / np.float32(rng.uniform(25, 55)) + np.float32(0.8) * _clouds(rng, size, 3))
    share = np.float32(0.5) * _noise(rng, size) + np.float32(0.25) * (1 + ripples)
    return _mix(share, _near(rng, 235, 210, 150), _near(rng, 205, 170, 105))


def _water(rng: np.random.RandomState, size: int) -> Field:
    y, _ = _grid(size)
    waves = sine(y / np.float32(rng.uniform(19, 44)) + np.float32(1.4) * _clouds(rng, size, 4))
    share = np.float32(0.5) + np.float32(0.5) * waves
    return _mix(share * share, _near(rng, 130, 200, 230), _near(rng, 20, 95, 170))


def _brick_wall(rng: np.random.RandomState, size: int) -> Field:
    y, x = _grid(size)
    height = int(rng.uniform(10, 24))
    width = int(height * rng.uniform(1.8, 2.6))
    row = np.floor(y / height)
    x = x + (row % 2) * np.float32(width // 2)
    joint = (y % height < max(1, height // 8)) | (x % width < max(1, height // 8))
    shade = rng.random_sample((64, 64)).astype(np.float32)
    shade = shade[row.astype(np.int64) % 64, np.floor(x / width).astype(np.int64) % 64]
    share = np.float32(0.7) * shade + np.float32(0.3) * _noise(rng, size)
    image = _mix(share, _near(rng, 190, 90, 65), _near(rng, 140, 55, 40))
    image[joint] = _near(rng, 200, 190, 180)
    return image


def _night_sky(rng: np.random.RandomState, size: int) -> Field:
    y, _ = _grid(size)
    share = y / np.float32(2 * size) + np.float32(0.5) * _clouds(rng, size, 3)
    image = _mix(share, _near(rng, 45, 45, 100), _near(rng, 8, 8, 30, spread=8))
    stars = _blurred((_noise(rng, size) > 0.996).astype(np.float32))
    return image + np.clip(4 * stars, 0, 1)[..., None] * np.float32(230)


def _blue_sky(rng: np.random.RandomState, size: int) -> Field:
    share = 2 * _clouds(rng, size, 5, high=2) - np.float32(rng.uniform(0.7, 1.1))
    return _mix(share, np.array([250, 250, 252], np.float32), _near(rng, 110, 175, 235))


def _snow(rng: np.random.RandomState, size: int) -> Field:
    share = np.float32(0.8) * _clouds(rng, size, 3) + np.float32(0.2) * _noise(rng, size)
    return _mix(share, np.array([252, 252, 255], np.float32), _near(rng, 215, 225, 240, spread=8))


def _wooden_planks(rng: np.random.RandomState, size: int) -> Field:
    y, x = _grid(size)
    width = int(rng.uniform(18, 40))
    plank = np.floor(x / width)
    warp = y / np.float32(rng.uniform(18, 40)) + 6 * _clouds(rng, size, 4, wide=4)
    grain = np.float32(0.5) + np.float32(0.5) * sine(np.float32(0.48) * warp + np.float32(0.33) * plank)
    shade = rng.random_sample(64).astype(np.float32)[plank.astype(np.int64) % 64]
    share = np.float32(0.7) * grain + np.float32(0.3) * shade
    image = _mix(share, _near(rng, 190, 135, 80), _near(rng, 125, 80, 40))
    image[x % width < 2] = _near(rng, 70, 42, 20, spread=8)
    return _turned(rng, image)


def _asphalt_road(rng: np.random.RandomState, size: int) -> Field:
    share = np.float32(0.6) * _noise(rng, size) + np.float32(0.4) * _clouds(rng, size, 3)
    image = _mix(share, np.array([120, 120, 122], np.float32), np.array([70, 70, 74], np.float32))
    dashed = (np.arange(size) // 28) % 2 == 0
    for left in range(int(rng.uniform(0, 128)), size, 170):
        image[dashed, left : left + int(rng.uniform(5, 10))] = (240, 235, 210)
    return _turned(rng, image)


def _two_tone(rng: np.random.RandomState, pattern: NDArray[np.bool_]) -> Field:
    a, b = _any_colour(rng), _any_colour(rng)
    if np.abs(a - b).sum() < 120:
        b = 255 - a
    return _mix(_blurred(pattern.astype(np.float32)), a, b)


def _stripes(rng: np.random.RandomState, size: int) -> Field:
    y, x = _grid(size)
    angle = (0.0, 90.0, 45.0, -45.0)[rng.randint(4)]
    along = x * np.float32(cosine(angle)) + y * np.float32(sine_of(angle))
    return _two_tone(rng, np.floor(along / np.float32(rng.uniform(8, 26))) % 2 == 1)


def _checkerboard(rng: np.random.RandomState, size: int) -> Field:
    y, x = _grid(size)
    width = np.float32(rng.uniform(8, 26))
    return _two_tone(rng, (np.floor(x / width) + np.floor(y / width)) % 2 == 1)


def _polka_dots(rng: np.random.RandomState, size: int) -> Field:
    y, x = _grid(size)
    width = np.float32(rng.uniform(10, 26))
    radius = width * np.float32(rng.uniform(0.2, 0.36))
    dx, dy = x % width - width / 2, y % width - width / 2
    return _two_tone(rng, dx * dx + dy * dy < radius * radius)


def _plain_background(rng: np.random.RandomState, size: int) -> Field:
    a, b = _any_colour(rng), _any_colour(rng)
    if rng.random_sample() < 0.35:
        a = b = np.full(3, rng.uniform(215, 255), np.float32)
    y, x = _grid(size)
    angle = rng.uniform(0, 360)
    share = _stretch(x * np.float32(cosine(angle)) + y * np.float32(sine_of(angle)))
    if rng.random_sample() < 0.3:
        share = _clouds(rng, size, 3)
    grain = (_noise(rng, size)[..., None] - np.float32(0.5)) * np.float32(rng.uniform(0, 25))
    return _mix(share, a, b) + grain


TEXTURES: dict[str, Painter] = {
    "grass": _grass,
    "sand": _sand,
    "water": _water,
    "brick wall": _brick_wall,
    "night sky": _night_sky,
    "blue sky": _blue_sky,
    "snow": _snow,
    "wooden planks": _wooden_planks,
    "stripes": _stripes,
    "checkerboard": _checkerboard,
    "polka dots": _polka_dots,
    "asphalt road": _asphalt_road,
    "plain background": _plain_background,
}
"""Painters by name, in the order of the word table's textures."""


def draw_texture(name: str, rng: np.random.RandomState, size: int) -> NDArray[np.uint8]:
    """A texture of size x size pixels, (S, S, 3) RGB."""
    return np.clip(np.rint(TEXTURES[name](rng, size)), 0, 255).astype(np.uint8)


class TextureBank:
    """A number of large pictures of each texture, drawn when first asked for, from which scenes are cut.

    Args:
        key: Integers that name the stream of random numbers: other keys give other pictures.
        variants: Pictures of each texture.
        size: Pixels of a picture's side: the largest scene that can be cut.
    """

    def __init__(self, *key: int, variants: int = 16, size: int = 256) -> None:
        self.names = tuple(TEXTURES)
        self.key, self.variants, self.size = key, variants, size
        self._drawn: dict[tuple[int, int], NDArray[np.uint8]] = {}

    def _picture(self, texture: int, variant: int) -> NDArray[np.uint8]:
        if (texture, variant) not in self._drawn:
            rng = random_state(*self.key, texture, variant)
            self._drawn[texture, variant] = draw_texture(self.names[texture], rng, self.size)
        return self._drawn[texture, variant]

    def cut(self, texture: int, size: int, rng: np.random.RandomState) -> NDArray[np.uint8]:
        """A random square of size x size pixels of a random variant, mirrored half of the time."""
        picture = self._picture(texture, rng.randint(self.variants))
        y, x = rng.randint(self.size - size + 1, size=2)
        square = picture[y : y + size, x : x + size]
        return square[:, ::-1] if rng.random_sample() < 0.5 else square
