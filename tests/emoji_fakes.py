"""Drawings for tests: coloured shapes instead of emoji, in the form of the prepared file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ovseg.datasets.emoji import ARTISTS, Drawings, word_table

SIDE = 32


def fake_arrays() -> dict[str, np.ndarray]:
    """One drawing of each word by one artist of each split: a rectangle whose form and colour tell the word."""
    table = word_table()
    artists = [next(a.name for a in ARTISTS if a.split == split) for split in ("train", "val", "test")]
    pixels, words, names = [], [], []
    for shade, artist in enumerate(artists):
        for i in range(len(table.words)):
            drawing = np.zeros((SIDE, SIDE, 4), np.uint8)
            top, left = 2 + i % 7, 2 + i // 7 % 7
            drawing[top : SIDE - 2, left : SIDE - 2] = (i, 255 - i, 40 * (i % 6), 255)
            drawing[top, left:-2, 3] = 128
            drawing[..., 2] += np.uint8(10 * shade)
            pixels.append(drawing)
            words.append(i)
            names.append(artist)
    return {
        "pixels": np.stack(pixels),
        "words": np.array(words, np.int16),
        "artists": np.array(names),
        "word_names": np.array([word.name for word in table.words]),
    }


def fake_drawings() -> Drawings:
    """The same, loaded."""
    arrays = fake_arrays()
    return Drawings(arrays["pixels"], arrays["words"], arrays["artists"])


def write_fake_drawings(folder: Path) -> Path:
    """The same as a cache folder for ``OVSEG_CACHE``."""
    path = folder / "emoji" / "drawings.npz"
    path.parent.mkdir(parents=True)
    np.savez_compressed(path, **fake_arrays())
    return path
