"""Texts that go with scenes: captions, and names of words in a template."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovseg.datasets.emoji.compose import Scene
from ovseg.datasets.emoji.words import WordTable

__all__ = ["PROMPTS", "caption", "some_name", "training_texts"]

PROMPTS: tuple[str, ...] = (
    "{}", "a {}", "a photo of a {}.", "a drawing of a {}.", "a photo of the {}.", "a picture of a {}.",
    "an image of a {}.", "a cartoon {}.", "a bad photo of a {}.", "a good photo of the {}.",
    "a close-up photo of a {}.", "a photo of a small {}.", "a photo of a large {}.", "a photo of one {}.",
    "a rendition of a {}.", "art of the {}.", "itap of a {}.", "there is a {} in the scene.",
    "this is a photo of a {}.", "a sketch of a {}.", "a photo of many {}.", "a clean photo of a {}.",
    "a cropped photo of the {}.", "a {} in a video game.", "the toy {}.", "a blurry photo of a {}.",
    "a bright photo of a {}.", "a dark photo of a {}.", "a photo of my {}.", "a photo of a nice {}.",
    "a low resolution photo of a {}.", "an emoji of a {}.", "a bad photo of the {}.",
    "a photo of the large {}.", "a photo of the small {}.",
)  # fmt: skip
"""Templates of the kind that CLIP's prompts are made of, so that the tower has read them all."""

_OPENINGS = ("", "a photo of ", "a picture of ", "a drawing of ", "there is ")
_PLACES = (" on ", " in front of ", " with ")


def some_name(table: WordTable, word: int, rng: np.random.RandomState) -> str:
    """A word's name, or a quarter of the time one of its synonyms."""
    names = table.words[word].names
    if len(names) == 1 or rng.random_sample() >= 0.25:
        return names[0]
    return names[1 + rng.randint(len(names) - 1)]


def caption(table: WordTable, scene: Scene, rng: np.random.RandomState) -> str:
    """A sentence that names every object in any order, and half of the time the texture."""
    names = [some_name(table, scene.words[i], rng) for i in rng.permutation(len(scene.words))]
    if len(names) == 1:
        text = PROMPTS[rng.randint(len(PROMPTS))].format(names[0]).rstrip(".")
    else:
        listed = ", ".join(f"a {name}" for name in names[:-1]) + f" and a {names[-1]}"
        text = _OPENINGS[rng.randint(len(_OPENINGS))] + listed
    if rng.random_sample() < 0.5:
        text += _PLACES[rng.randint(len(_PLACES))] + table.textures[scene.texture]
    return text


def training_texts(table: WordTable, words: Sequence[int]) -> list[str]:
    """Texts that together hold every token that training on ``words`` can show to the text tower."""
    names = [name for word in words for name in table.words[word].names] + list(table.textures)
    joined = [opening + "a cat, a dog and a bird" for opening in _OPENINGS]
    placed = [f"cat{place}{texture}" for place in _PLACES for texture in table.textures]
    prompts = [prompt.format("cat") for prompt in PROMPTS]
    return names + joined + placed + prompts + [f"{name}, a {name}." for name in names]
