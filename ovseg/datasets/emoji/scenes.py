"""EmojiScenes: the generated data set, item by item a function of seed, split and index."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ovseg.datasets.emoji.compose import Pose, Scene, paste, random_pose, recolour
from ovseg.datasets.emoji.drawings import Drawings, Split
from ovseg.datasets.emoji.randomness import random_state
from ovseg.datasets.emoji.textures import TEXTURES, TextureBank
from ovseg.datasets.emoji.words import WordGroup

__all__ = ["EmojiScenes", "SceneComposer"]

_SPLITS: tuple[Split, ...] = ("train", "val", "test")
_PLAIN = tuple(TEXTURES).index("plain background")
_Placed = tuple[int, float, float, float]  # word, x, y, size in pixels
_MIN_SIZE = 18  # pixels: smaller drawings cannot be told apart


class SceneComposer:
    """Draws scenes of one split's drawings.

    Args:
        drawings: All drawings.
        split: Which artists.
        words: Indices of the words that may appear; those without a drawing in the split are dropped.
        seed: Of the textures.
        strength: Of turning, stretching and recolouring; 0 pastes drawings as they are.
        texture_size: Pixels; the largest scene.
    """

    def __init__(
        self,
        drawings: Drawings,
        split: Split,
        words: Sequence[int],
        *,
        seed: int = 0,
        strength: float = 1,
        texture_size: int = 256,
    ) -> None:
        self.drawings, self.strength = drawings, strength
        self.by_word = drawings.select(split, words)
        self.words = tuple(self.by_word)
        self.textures = TextureBank(seed, _SPLITS.index(split), size=texture_size)

    def shuffled_words(self, rng: np.random.RandomState) -> Iterator[int]:
        """Words without end, each as often as any other."""
        while True:
            yield from (self.words[i] for i in rng.permutation(len(self.words)))

    def single(self, rng: np.random.RandomState, size: int, word: int) -> Scene:
        """One large drawing; a third of the time on a plain background."""
        texture = self._texture(rng, plain=0.35)
        extent = rng.uniform(0.55, 1.1) * size
        return self._draw(rng, size, texture, [(word, size / 2, size / 2, extent)])

    def scene(
        self, rng: np.random.RandomState, size: int, words: Sequence[int], extent: tuple[float, float]
    ) -> Scene:
        """Several drawings kept apart; one that finds no place is left out.

        Args:
            rng: Source of every choice.
            size: Pixels of the scene's side.
            words: What to draw, in the order of drawing.
            extent: Least and largest size of a drawing, as a share of the side.
        """
        texture = self._texture(rng, plain=0.15)
        placed: list[_Placed] = []
        for word in words:
            if word in (other[0] for other in placed):
                continue
            side = max(_MIN_SIZE, rng.uniform(*extent) * size)
            spot = _free_spot(rng, size, side, placed)
            if spot is not None:
                placed.append((word, *spot, side))
        return self._draw(rng, size, texture, placed)

    def _texture(self, rng: np.random.RandomState, plain: float) -> int:
        return _PLAIN if rng.random_sample() < plain else rng.randint(len(TEXTURES))

    def _draw(self, rng: np.random.RandomState, size: int, texture: int, placed: list[_Placed]) -> Scene:
        image = self.textures.cut(texture, size, rng).copy()
        instances = np.zeros((size, size), np.uint8)
        for number, (word, x, y, side) in enumerate(placed, start=1):
            choices = self.by_word[word]
            drawing = self.drawings.level_for(side)[choices[rng.randint(len(choices))]]
            if self.strength:
                drawing = recolour(drawing, rng)
            pose = random_pose(rng, x, y, side, self.strength) if self.strength else Pose(x, y, side, side)
            shadow = rng.randint(1, 4) if rng.random_sample() < 0.25 * self.strength else 0
            paste(image, instances, drawing, pose, number, shadow)
        if self.strength:
            image = _camera(image, rng)
        return Scene(image, instances, tuple(spot[0] for spot in placed), texture)


class EmojiScenes(Sequence[Scene]):
    """Scenes of three to six different objects on a texture.

    Item i depends on seed, split, groups, size and i alone, so any part can be drawn anywhere, in any order.

    Args:
        split: Whose drawings: "train", "val" or "test".
        groups: Which words.
        size: Pixels of a scene's side, 128 to 512.
        length: Number of scenes.
        seed: Other seeds give other scenes.
        drawings: Read from the cache folder by default.

    Raises:
        FileNotFoundError: The drawings have not been prepared.
    """

    def __init__(
        self,
        split: Split,
        groups: Sequence[WordGroup] = ("base",),
        *,
        size: int = 224,
        length: int = 1000,
        seed: int = 0,
        drawings: Drawings | None = None,
    ) -> None:
        drawings = drawings or Drawings.load()
        self.split, self.size, self.length, self.seed = split, size, length, seed
        self.table = drawings.table
        words = self.table.select(*groups)
        texture_size = 256 if size <= 224 else 512
        self.composer = SceneComposer(
            drawings, split, words, seed=seed + 1, strength=0.5, texture_size=texture_size
        )

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Scene:  # type: ignore[override]
        if not 0 <= index < self.length:
            raise IndexError(f"scene {index} of {self.length}")
        rng = random_state(self.seed, _SPLITS.index(self.split), self.size, index)
        count = rng.randint(3, 7)
        order = self.composer.shuffled_words(rng)
        extent = (0.25, 0.44) if count < 5 else (0.21, 0.36)
        return self.composer.scene(rng, self.size, [next(order) for _ in range(count)], extent)


def _free_spot(
    rng: np.random.RandomState, size: int, side: float, placed: list[_Placed]
) -> tuple[float, float] | None:
    """A centre at which a drawing overlaps little with what is there; the best of twelve, or None."""
    margin = min(side * 0.45, size / 2)
    best, room = None, -0.2 * side
    for _ in range(12):
        x, y = rng.uniform(margin, size - margin, 2).tolist()
        gap = min((math.hypot(x - x2, y - y2) - (side + s2) * 0.46 for _, x2, y2, s2 in placed), default=1)
        if gap > room:
            best, room = (x, y), gap
        if gap > 0:
            break
    return best


def _camera(image: NDArray[np.uint8], rng: np.random.RandomState) -> NDArray[np.uint8]:
    """A little blur or noise now and then."""
    if rng.random_sample() < 0.15:
        wide = image.astype(np.int32)
        for axis in (0, 1):
            wide = (2 * wide + np.roll(wide, 1, axis) + np.roll(wide, -1, axis) + 2) >> 2
        image = wide.astype(np.uint8)
    if rng.random_sample() < 0.3:
        spread = rng.randint(2, 13)
        noise = rng.randint(-spread, spread + 1, image.shape)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return image
