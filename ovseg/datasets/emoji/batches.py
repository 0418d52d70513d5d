"""Training batches for a CLIP: scenes, their masks and their texts, as a function of seed and step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from ovseg.datasets.emoji.captions import PROMPTS, caption, some_name
from ovseg.datasets.emoji.compose import Scene
from ovseg.datasets.emoji.drawings import Drawings
from ovseg.datasets.emoji.randomness import random_state
from ovseg.datasets.emoji.scenes import SceneComposer
from ovseg.datasets.emoji.words import WordGroup

__all__ = ["EmojiBatches", "Stage"]

_STREAM = 3  # apart from the streams of ``EmojiScenes``, which are numbered by split


@dataclass(frozen=True)
class Stage:
    """Image sizes up to some step.

    Attributes:
        until: First step that is no longer in this stage.
        sizes: (pixels of the side, images in a batch, share of the steps) for each size.
    """

    until: int
    sizes: tuple[tuple[int, int, float], ...]


class EmojiBatches(Sequence[dict[str, Any]]):
    """Item i is the batch of step i: all images of one size, drawn from (seed, i) alone.

    So neither the number of workers nor a resume changes what is drawn.

    Args:
        stages: Sizes by step, in order, as ``Stage`` or its fields; the last one also serves the steps after.
        groups: Which words appear.
        seed: Other seeds give other batches.
        single: Share of the images that show one large drawing.
        drawings: Read from the cache folder by default.

    A batch is a dict of ``image`` (B, S, S, 3) uint8, ``instances`` (B, S, S) uint8, ``labels`` (B, O) int64:
    row of ``names`` that instance o of image b shows (column 0 is the texture, -1 pads), ``captions`` B
    strings, ``single`` (B,) bool, ``names`` R strings: every word and texture once, in a synonym and template
    of this step; rows are the words of ``groups`` in order, then the textures; ``step``.
    """

    def __init__(
        self,
        stages: Sequence[Stage | tuple[int, Sequence[tuple[int, int, float]]]],
        groups: Sequence[WordGroup] = ("base", "novel"),
        *,
        seed: int = 0,
        single: float = 0.32,
        drawings: Drawings | None = None,
    ) -> None:
        self.stages = tuple(s if isinstance(s, Stage) else Stage(s[0], tuple(s[1])) for s in stages)
        self.seed, self.single = seed, single
        drawings = drawings or Drawings.load()
        self.table = drawings.table
        self.words = self.table.select(*groups)
        self.rows = {word: row for row, word in enumerate(self.words)}
        self.composer = SceneComposer(drawings, "train", self.words, seed=seed)

    def __len__(self) -> int:
        return self.stages[-1].until

    def __getitem__(self, step: int) -> dict[str, Any]:  # type: ignore[override]
        rng = random_state(self.seed, _STREAM, step)
        size, count = self._size(step, rng)
        order = self.composer.shuffled_words(rng)
        single = rng.random_sample(count) < self.single
        scenes = []
        for alone in single:
            if alone:
                scenes.append(self.composer.single(rng, size, next(order)))
            else:
                number, extent = _crowd(size, rng)
                words = [next(order) for _ in range(number)]
                scenes.append(self.composer.scene(rng, size, words, extent))
        return {
            "image": np.stack([scene.image for scene in scenes]),
            "instances": np.stack([scene.instances for scene in scenes]),
            "labels": self._labels(scenes),
            "captions": [caption(self.table, scene, rng) for scene in scenes],
            "single": single,
            "names": self._names(rng),
            "step": step,
        }

    def count_images(self, steps: int) -> int:
        """Images in the batches of the first steps."""
        return sum(self._size(step, random_state(self.seed, _STREAM, step))[1] for step in range(steps))

    def _size(self, step: int, rng: np.random.RandomState) -> tuple[int, int]:
        """(pixels, images) of a step."""
        stage = next((stage for stage in self.stages if step < stage.until), self.stages[-1])
        at = rng.random_sample() * sum(share for _, _, share in stage.sizes)
        bounds = accumulate(share for _, _, share in stage.sizes)
        index = next((i for i, bound in enumerate(bounds) if at < bound), -1)
        return stage.sizes[index][:2]

    def _labels(self, scenes: Sequence[Scene]) -> np.ndarray:
        labels = np.full((len(scenes), 1 + max(len(scene.words) for scene in scenes)), -1)
        for row, scene in zip(labels, scenes):
            row[0] = len(self.words) + scene.texture
            row[1 : 1 + len(scene.words)] = [self.rows[word] for word in scene.words]
        return labels

    def _names(self, rng: np.random.RandomState) -> list[str]:
        prompt = PROMPTS[rng.randint(len(PROMPTS))] if rng.random_sample() < 0.4 else "{}"
        names = [some_name(self.table, word, rng) for word in self.words]
        return [prompt.format(name) for name in (*names, *self.table.textures)]


def _crowd(size: int, rng: np.random.RandomState) -> tuple[int, tuple[float, float]]:
    """Number of objects in a scene of some size, and their least and largest extent."""
    if size <= 64:
        number = 2
    elif size <= 128:
        number = rng.randint(2, 5)
    else:
        number = rng.randint(3, 7)
    if number == 2:
        return number, (0.42, 0.72)
    return number, ((0.34, 0.62) if number == 3 and size <= 128 else (0.22, 0.46))
