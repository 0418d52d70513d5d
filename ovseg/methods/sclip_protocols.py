"""The protocol of SCLIP's evaluation, which later methods took over with changes of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ovseg.dense.windows import Pad
from ovseg.inference.protocol import Protocol, Resize
from ovseg.inference.steps import Floor, Pamr, SmallAreas, Softmax, Step
from ovseg.methods.method import DEFAULT_PROTOCOL, EMOJI_PROTOCOL, pairs_protocol

__all__ = ["protocols_of", "sclip_protocol"]


def sclip_protocol(
    name: str,
    *,
    words: str | None = None,
    short: int = 336,
    windows: tuple[int, int] | None = (224, 112),
    scale: float = 40.0,
    floor: float = 0.0,
    pad: Pad | None = None,
    pamr: Pamr | None = None,
    small_areas: float | None = None,
) -> Protocol:
    """Short side, windows, 80 templates, softmax over words, unsure pixels to class 0.

    Args:
        name: Data set.
        words: Word list; by default SCLIP's of that data set.
        short: Pixels of the short side; the long side has at most 2048.
        windows: Side and step in pixels; None for the whole image.
        scale: Of the softmax.
        floor: Pixels whose best probability is below it become class 0.
        pad: Padding of each window.
        pamr: Refinement of the scores.
        small_areas: Share for ``SmallAreas``.
    """
    steps: list[Step] = [pamr] if pamr else []
    steps.append(Softmax(scale))
    if small_areas is not None:
        steps.append(SmallAreas(small_areas))
    if floor:
        steps.append(Floor(floor, label=0))
    crop, stride = windows or (None, None)
    return Protocol(
        name, Resize(short), crop=crop, stride=stride, pad=pad, words=words or f"{name}.sclip",
        steps=tuple(steps),
    )  # fmt: skip


def protocols_of(
    *papers: Protocol,
    miou: Mapping[str, Mapping[str, float]] | None = None,
    default: Protocol = DEFAULT_PROTOCOL,
    emoji: Protocol = EMOJI_PROTOCOL,
    pairs: Protocol | None = None,
) -> dict[str, Protocol]:
    """A method's protocols by name.

    Args:
        *papers: Those of the paper.
        miou: Published mIoU in percent: protocol, then tower; for those that do not bring it.
        default: For users' own images.
        emoji: For the embedded towers.
        pairs: For the one of image-text pairs; by default ``pairs_protocol(emoji)``.
    """
    numbers = miou or {}
    own = (default, emoji, pairs or pairs_protocol(emoji))
    with_numbers = (replace(p, paper=numbers.get(p.name, p.paper)) for p in papers)
    return {protocol.name: protocol for protocol in (*own, *with_numbers)}
