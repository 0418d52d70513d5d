"""The drawings of EmojiScenes: who made them, how they are split, and the file they are kept in."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ovseg.datasets.emoji.words import WordTable, word_table

__all__ = ["ARTISTS", "Artist", "Drawings", "Split", "default_path"]

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Artist:
    """One set of drawings, an npm package of a pinned version.

    Attributes:
        name: Short name, as in the file of drawings.
        package: npm package.
        version: Its exact version.
        licence: SPDX identifier that the package must state.
        attribution: What has to be said where the drawings are shown.
        split: Drawings of one artist are never in two splits.
    """

    name: str
    package: str
    version: str
    licence: str
    attribution: str
    split: Split


_NOTO = "Noto Emoji, (c) Google Inc., Apache-2.0, https://github.com/googlefonts/noto-emoji"
_FLUENT = "Fluent Emoji, (c) Microsoft Corporation, MIT, https://github.com/microsoft/fluentui-emoji"
_FX = "FxEmojis, (c) Mozilla Foundation, Apache-2.0, https://github.com/mozilla/fxemoji"
_ONE = "Emoji One 2 / EmojiTwo, CC-BY-4.0, https://github.com/EmojiTwo/emojitwo"
_STREAMLINE = "Streamline Emojis, CC-BY-4.0, https://github.com/webalys-hq/streamline-vectors"
_TWEMOJI = "Twemoji, (c) Twitter, Inc and other contributors, CC-BY-4.0, https://github.com/jdecked/twemoji"

ARTISTS: tuple[Artist, ...] = (
    Artist("noto", "@iconify-json/noto", "1.2.9", "Apache-2.0", _NOTO, "train"),
    Artist("noto-v1", "@iconify-json/noto-v1", "1.2.5", "Apache-2.0", _NOTO, "train"),
    Artist("fxemoji", "@iconify-json/fxemoji", "1.2.2", "Apache-2.0", _FX, "train"),
    Artist("fluent-flat", "@iconify-json/fluent-emoji-flat", "1.2.6", "MIT", _FLUENT, "train"),
    Artist("fluent", "@iconify-json/fluent-emoji", "1.2.7", "MIT", _FLUENT, "train"),
    Artist("fluent-3d", "@lobehub/fluent-emoji-3d", "1.1.0", "MIT", _FLUENT, "train"),
    Artist("emojione", "@iconify-json/emojione", "1.2.3", "CC-BY-4.0", _ONE, "train"),
    Artist("streamline", "@iconify-json/streamline-emojis", "1.2.4", "CC-BY-4.0", _STREAMLINE, "val"),
    Artist("twemoji", "@iconify-json/twemoji", "1.2.5", "CC-BY-4.0", _TWEMOJI, "test"),
)
"""Several artists' sets under open licences; none with share-alike or non-commercial terms."""


def default_path() -> Path:
    """Where ``tools/prepare/emoji.py`` puts the drawings: ``$OVSEG_CACHE`` or ``~/.cache/ovseg``."""
    return Path(os.environ.get("OVSEG_CACHE") or Path.home() / ".cache" / "ovseg") / "emoji" / "drawings.npz"


class Drawings:
    """All drawings, as premultiplied RGBA, in powers of two of their size.

    Args:
        pixels: (N, S, S, 4) uint8 RGBA, not premultiplied, S a multiple of 4.
        words: (N,) index of each drawing's word in the word table.
        artists: (N,) name of each drawing's artist.
        table: The word table that ``words`` refers to.
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        words: NDArray[np.integer],
        artists: NDArray[np.str_],
        table: WordTable | None = None,
    ) -> None:
        self.table = table or word_table()
        self.words, self.artists = words, artists
        alpha = pixels[..., 3:].astype(np.uint16)
        full = pixels.copy()
        full[..., :3] = (full[..., :3] * alpha + 127) // 255
        half = _halved(full)
        self.levels: tuple[NDArray[np.uint8], ...] = (full, half, _halved(half))

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def load(cls, path: str | Path | None = None) -> Drawings:
        """Reads the file that ``tools/prepare/emoji.py`` writes.

        Raises:
            FileNotFoundError: It is not there.
            ValueError: It was made for other words than this version's.
        """
        path = Path(path) if path else default_path()
        if not path.is_file():
            raise FileNotFoundError(f"no drawings at {path}: run `python tools/prepare/emoji.py` first")
        with np.load(path, allow_pickle=False) as archive:
            data = {key: archive[key] for key in archive.files}
        table = word_table()
        position = {word.name: i for i, word in enumerate(table.words)}
        names = [str(name) for name in data["word_names"]]
        if missing := [word.name for word in table.words if word.name not in names]:
            raise ValueError(
                f"{path} lacks drawings of {', '.join(missing[:5])}: run `python tools/prepare/emoji.py`"
            )
        known = np.array([position.get(name, -1) for name in names])[data["words"]]
        keep = known >= 0
        return cls(data["pixels"][keep], known[keep], data["artists"][keep], table)

    def select(self, split: Split, words: Iterable[int]) -> Mapping[int, tuple[int, ...]]:
        """Drawings of a split's artists by word; words without any are left out."""
        artists = {artist.name for artist in ARTISTS if artist.split == split}
        return {
            word: ids
            for word in words
            if (ids := tuple(i for i in self._by_word.get(word, ()) if self.artists[i] in artists))
        }

    @cached_property
    def _by_word(self) -> dict[int, list[int]]:
        table: dict[int, list[int]] = {}
        for i, word in enumerate(self.words):
            table.setdefault(int(word), []).append(i)
        return table

    def level_for(self, size: float) -> NDArray[np.uint8]:
        """The smallest level whose drawings are not much smaller than ``size`` pixels: (N, s, s, 4)."""
        for level in reversed(self.levels):
            if size <= 1.15 * level.shape[1]:
                return level
        return self.levels[0]


def _halved(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean of 2 x 2 pixels, rounded, in integers: the same on every machine."""
    wide = pixels.astype(np.uint16)
    total = wide[:, ::2, ::2] + wide[:, 1::2, ::2] + wide[:, ::2, 1::2] + wide[:, 1::2, 1::2]
    return ((total + 2) >> 2).astype(np.uint8)
