"""Label maps in files: read at their full depth, with everything that does not count as -1."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

__all__ = ["LabelError", "read_labels", "truth_of"]

_INTEGER_MODES = {"L", "P", "1", "I", "I;16", "I;16B", "I;16L", "I;16N"}


class LabelError(ValueError):
    """A label map is missing, damaged, or holds values that no class has. The message names the file."""


def read_labels(path: str | os.PathLike[str]) -> NDArray[np.int32]:
    """The stored numbers (H, W) of an indexed or greyscale PNG or TIFF of 8, 16 or 32 bits.

    Raises:
        LabelError: The file is missing, damaged, or a colour picture.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in _INTEGER_MODES:
                raise LabelError(
                    f"{path} is a colour picture ({image.mode}), not a label map: labels are stored as "
                    "numbers in an indexed or greyscale PNG or TIFF"
                )
            return np.asarray(image).astype(np.int32)
    except FileNotFoundError:
        raise LabelError(f"there is no label map {path}") from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise LabelError(
            f"{path} cannot be read as a label map ({error}); restore or prepare it anew"
        ) from error


def truth_of(
    labels: NDArray[np.int32],
    num_classes: int,
    *,
    ignore_index: int = 255,
    reduce_zero_label: bool = False,
    label_map: Mapping[int, int] | None = None,
    source: str | Path = "the label map",
) -> NDArray[np.int32]:
    """Classes (H, W) in -1..K-1 from stored numbers, by mmseg's rules but without its 8 bits.

    Args:
        labels: As stored.
        num_classes: K.
        ignore_index: Stored or mapped number of pixels that are left out; they become -1.
        reduce_zero_label: 0 is left out and k stands for class k - 1.
        label_map: Other numbers for some (after ``reduce_zero_label``); ``ignore_index`` leaves them out.
        source: For the message of an error.

    Raises:
        LabelError: A number belongs to no class.
    """
    kept = labels != ignore_index
    values = labels - 1 if reduce_zero_label else labels
    truth = np.where(kept & (values >= 0), values, -1)
    if label_map:
        table = np.arange(max(int(truth.max(initial=0)), *label_map) + 2)  # the last entry serves -1
        table[-1] = -1
        for old, new in label_map.items():
            table[old] = -1 if new == ignore_index else new
        truth = table[truth]
    if (strange := np.unique(truth[truth >= num_classes])).size:
        stored = strange + 1 if reduce_zero_label and not label_map else strange
        raise LabelError(
            f"{source} holds {', '.join(map(str, stored[:5].tolist()))}, but there are {num_classes} "
            "classes; prepare the data set anew, or name all its classes"
        )
    return truth.astype(np.int32)
