"""``label_studio``: a task for Label Studio, with a brush mask per class as a prediction.

Its labelling configuration needs ``<Image name="image"/>`` and ``<BrushLabels name="tag" toName="image"/>``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ovseg import __version__
from ovseg._lazy import np
from ovseg.inference.results import SegResult
from ovseg.inference.writers import Writer
from ovseg.inference.writers._describe import describe, present, restore, write_json

__all__ = ["WRITER", "decode_brush", "encode_brush"]

_SIZES = (3, 4, 8, 16)  # bits of a run's length; the encoder chooses the smallest that holds it
_CHANNELS = 4  # Label Studio keeps masks as RGBA


def encode_brush(mask: np.ndarray) -> list[int]:
    """Bytes of a mask (H, W) bool in the run-length code of Label Studio's brush (thi.ng/rle-pack).

    A header: number of values (32 bits), bits of a value less 1 (5), the four sizes less 1 (4 each). Then for
    each run: 1, which of the sizes (2 bits), length less 1, value (8 bits).
    """
    flat = mask.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    bits = [f"{flat.size * _CHANNELS:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in _SIZES)]
    for start, length in zip(starts[:-1].tolist(), (np.diff(starts) * _CHANNELS).tolist()):
        value = "11111111" if flat[start] else "00000000"
        while length:
            run = min(length, 1 << _SIZES[-1])
            kind = next(i for i, size in enumerate(_SIZES) if run <= 1 << size)
            bits.append(f"1{kind:02b}{run - 1:0{_SIZES[kind]}b}{value}")
            length -= run
    joined = np.frombuffer("".join(bits).encode("ascii"), np.uint8) - ord("0")
    return np.packbits(joined).tolist()


def decode_brush(code: list[int], size: tuple[int, int]) -> np.ndarray:
    """The mask (H, W) bool of ``encode_brush``, or of Label Studio's own encoder."""
    bits = np.unpackbits(np.array(code, np.uint8)).tobytes().translate(bytes([48, 49]) + bytes(254)).decode()
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    values = np.zeros(read(32), np.uint8)
    word, sizes, i = read(5) + 1, [read(4) + 1 for _ in range(4)], 0
    while i < len(values):
        repeated = read(1)
        length = read(sizes[read(2)]) + 1
        values[i : i + length] = read(word) if repeated else [read(word) for _ in range(length)]
        i += length
    return values[::_CHANNELS].reshape(size) > 0


def _write(result: SegResult, path: Path) -> tuple[Path, ...]:
    prediction = {
        "model_version": f"ovseg {__version__}",
        "result": [_brush(result, i) for i, _ in present(result)],
    }
    document = {
        "data": {"image": result.source or ""},
        "predictions": [prediction],
        "meta": {"ovseg": {**describe(result), "size": result.size}},
    }
    write_json(document, path)
    return (path,)


def _brush(result: SegResult, label: int) -> dict[str, Any]:
    height, width = result.size
    return {
        "id": f"ovseg-{label}",
        "type": "brushlabels",
        "from_name": "tag",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {
            "format": "rle",
            "rle": encode_brush(result.label_map == label),
            "brushlabels": [result.vocabulary.names[label]],
        },
    }


def _read(path: Path) -> SegResult:
    document = json.loads(path.read_text(encoding="utf-8"))
    description = document.get("meta", {}).get("ovseg")
    if description is None:
        raise ValueError(f"{path} was not written by ovseg: meta.ovseg is missing")
    index = {item["name"]: i for i, item in enumerate(description["vocabulary"]["classes"])}
    height, width = description["size"]
    label_map = np.full((height, width), -1, np.int32)
    for brush in document["predictions"][0]["result"]:
        mask = decode_brush(brush["value"]["rle"], (height, width))
        label_map[mask] = index[brush["value"]["brushlabels"][0]]
    return restore(label_map, description)


WRITER = Writer(
    extension=".label_studio.json",
    suffixes=(".json",),
    write=_write,
    read=_read,
    in_words="a task for Label Studio with brush masks",
)
