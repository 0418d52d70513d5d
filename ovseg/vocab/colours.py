"""Colours of classes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

__all__ = ["class_colours"]

# Greedy farthest points in OKLab, hue weighted over lightness (an overlay keeps the photograph's shading),
# neither near-black, near-white nor near-grey: any prefix of the list is well separated. Two of the first 12
# differ by 0.16 in OKLab or more, two of the first 40 by 0.08.
_PALETTE = tuple(
    (code >> 16, code >> 8 & 255, code & 255)
    for code in (
        0xE11E2D, 0x1EF01E, 0x1E1EF0, 0xA5D2F0, 0xD21EF0, 0x1E5A1E, 0xF0B41E, 0x5A2D69,
        0xE187C3, 0x1E78C3, 0x874B1E, 0x4BC387, 0x875AF0, 0xF01EA5, 0xD2F02D, 0xE1F0B4,
        0x4B8787, 0xF08769, 0xA52D69, 0x87871E, 0x1EF0F0, 0x2D2DA5, 0x9687D2, 0x871EA5,
        0x1E4B69, 0xC3A578, 0x966978, 0x1EB41E, 0xC369E1, 0x1EB4E1, 0xF0C3E1, 0xF05A87,
        0x781E2D, 0x4B69F0, 0xA5C35A, 0x78F078, 0x3C871E, 0x5A1EF0, 0x96C3A5, 0xB44B4B,
        0x5A5AA5, 0x5A1EA5, 0x961EF0, 0xC3781E, 0x964B96, 0xC31EB4, 0xF069D2, 0x69693C,
    )
)  # fmt: skip
_TIER = 12
_GREYS = ((96, 96, 96), (160, 160, 160), (64, 64, 64), (128, 128, 128))
_LOW_DISCREPANCY = (0.8191725, 0.6710436, 0.5497005)  # powers of the generalised golden ratio in 3 dimensions


def class_colours(names: Sequence[str], background: Sequence[bool]) -> list[tuple[int, int, int]]:
    """RGB colours (0-255) for the classes of one vocabulary, in order.

    Distinctness comes first: K classes get the first K colours of a palette of well separated ones, tier by
    tier of 12. Within the tier the name chooses (a hash, then the next free place), so that most classes keep
    their colour when others are added, dropped or moved; the first class always does. Background classes are
    grey. Beyond 48 classes colours still differ, but no eye tells 100 apart.
    """
    colours: list[tuple[int, int, int]] = []
    used: set[int] = set()
    greys = 0
    for name, is_background in zip(names, background):
        if is_background:
            colours.append(_GREYS[greys % len(_GREYS)])
            greys += 1
        else:
            place = _place(name, used)
            used.add(place)
            colours.append(_PALETTE[place] if place < len(_PALETTE) else _spread(place))
    return colours


def _place(name: str, used: set[int]) -> int:
    tier = len(used) // _TIER  # tiers fill one after the other, so the first len(used) // _TIER are full
    if tier >= len(_PALETTE) // _TIER:
        return len(used)
    wanted = zlib.crc32(name.casefold().encode())
    slots = (tier * _TIER + (wanted + step) % _TIER for step in range(_TIER))
    return next(slot for slot in slots if slot not in used)


def _spread(i: int) -> tuple[int, int, int]:
    red, green, blue = (int(40 + 196 * (i * step % 1.0)) for step in _LOW_DISCREPANCY)
    return red, green, blue
