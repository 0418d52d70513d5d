"""``overlay``: a picture for people, the image with its classes or boxes and a legend."""

from __future__ import annotations

import io
from pathlib import Path

from ovseg._files import atomic_path
from ovseg.inference.results import DetResult, SegResult
from ovseg.inference.writers import Writer

__all__ = ["WRITER"]


_JPEG_LIMIT = 65500  # pixels a side, of libjpeg


def _write(result: SegResult | DetResult, path: Path) -> tuple[Path, ...]:
    from PIL import Image

    picture = Image.fromarray(result.overlay())
    encoded = io.BytesIO()
    if path.suffix.lower() == ".png":
        picture.save(encoded, "png", compress_level=4)  # half the time of the default, files 2 % larger
    elif max(picture.size) > _JPEG_LIMIT:
        raise ValueError(f"{path}: JPEG holds at most {_JPEG_LIMIT} pixels a side; save the overlay as .png")
    else:
        picture.save(encoded, "jpeg", quality=92, subsampling=0)  # full colour, for the edges of the regions
    # Not straight into the file: there Pillow's JPEG encoder overlooks a disk that is full at the last block.
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.getbuffer())
    return (path,)


WRITER = Writer(
    extension=".overlay.png",
    suffixes=(".png", ".jpg", ".jpeg"),
    write=_write,
    read=None,
    in_words="the image with its classes or boxes, and a legend",
    write_detections=_write,
)
