"""Damaged pictures, by the name of their file."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image


def encoded(format: str, mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> bytes:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).convert(mode)
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


def _cut(share: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(len(data) * share)]


def _flipped(seed: int) -> Callable[[bytes], bytes]:
    def flip(data: bytes) -> bytes:
        rng = np.random.default_rng(seed)
        out = bytearray(data)
        for place in rng.integers(0, len(out), 12):
            out[place] ^= 1 << int(rng.integers(8))
        return bytes(out)

    return flip


_FORMATS = ["png", "jpeg", "gif", "webp", "tiff", "bmp", "ppm", "tga"]
_DAMAGE = {
    "first_byte": _cut(0.001),
    "cut_10": _cut(0.1),
    "cut_50": _cut(0.5),
    "cut_90": _cut(0.9),
    "no_header": lambda data: b"\0" * 16 + data[16:],
    "zeros": lambda data: b"\0" * len(data),
    "no_tail": lambda data: data[:-3],
    "twice": lambda data: data + data,
    **{f"flipped_{seed}": _flipped(seed) for seed in range(6)},
}


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_of_size(width: int, height: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 10)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _png_chunk(b"IHDR", head)
        + _png_chunk(b"IDAT", body)
        + _png_chunk(b"IEND", b"")
    )


OTHER = {
    "empty.jpg": b"",
    "one_byte.png": b"\x89",
    "text.jpg": b"this is no picture",
    "page.png": b"<html><body>404 not found</body></html>",
    "json.jpg": b'{"error": "not found"}',
    "zip.png": b"PK\x03\x04" + b"\0" * 60,
    "pdf.jpg": b"%PDF-1.4\n%\xe2\xe3",
    "pickle.png": pickle.dumps([1, 2, 3]),
    "utf16.jpg": "picture".encode("utf-16"),
    "no_pixels.png": _png_of_size(0, 0),
    "no_rows.png": _png_of_size(10, 0),
    "huge.png": _png_of_size(100_000, 100_000),
    "missing_rows.png": _png_of_size(500, 500),
    "only_magic.png": b"\x89PNG\r\n\x1a\n",
    "only_magic.jpg": b"\xff\xd8\xff\xe0",
    "only_magic.gif": b"GIF89a",
    "only_magic.webp": b"RIFF\x10\0\0\0WEBP",
    "random.jpg": np.random.default_rng(1).integers(0, 256, 4000, np.uint8).tobytes(),
    "no\nline.png": b"",
}

IMAGES: dict[str, bytes] = {
    **{
        f"{kind}.{format}": change(encoded(format)) for format in _FORMATS for kind, change in _DAMAGE.items()
    },
    **OTHER,
}
