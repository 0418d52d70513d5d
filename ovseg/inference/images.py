"""Images in: whatever a user may hand over becomes (H, W, 3) uint8 RGB, or an error that says what to do."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from PIL import Image as PILImage
    from torch import Tensor

__all__ = ["ImageError", "ImageSource", "read_image"]

_FLOAT_SLACK = 1e-3  # rounding of resized or compressed values; more means another range
_WARNINGS_LOCK = threading.Lock()

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | IO[bytes] | PILImage.Image | np.ndarray | Tensor"


class ImageError(ValueError):
    """An image cannot be read. The message names the file, what is wrong with it, and the cure."""


def read_image(source: ImageSource) -> np.ndarray:
    """Decodes one image.

    Files are turned upright by their EXIF orientation. Of an animation the first frame is taken. Transparent
    images are laid on white. 16-bit greyscale keeps its eight high bits. 32-bit files, which carry no range,
    are read as 16-bit where their values fit, else stretched from their minimum to their maximum.

    Args:
        source: A path, the bytes of a file, a file open for reading in binary mode, a PIL image, a numpy
            array (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA, or a tensor of these shapes or channels
            first. Arrays and tensors are uint8, uint16, or floating point in [0, 1].

    Returns:
        (H, W, 3) uint8 RGB. Shares memory with ``source`` where that is such an array already.

    Raises:
        ImageError: The source is missing, empty, damaged, no image, too large, or an array of another kind.
    """
    from PIL import Image

    if isinstance(source, np.ndarray):
        return _from_array(source, "array")
    torch = sys.modules.get("torch")  # not imported: who hands over a tensor has imported it
    if torch is not None and isinstance(source, torch.Tensor):
        return _from_tensor(source)
    if isinstance(source, Image.Image):
        name = str(getattr(source, "filename", "") or "PIL image")
        with _named_errors(name):
            return _from_pil(source, name)
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode(io.BytesIO(source), "image bytes")
    if isinstance(source, str | os.PathLike):
        return _from_path(Path(source))
    if hasattr(source, "read"):
        data = source.read()
        name = str(getattr(source, "name", "file object"))
        if not isinstance(data, bytes):
            raise ImageError(f"{name} is open in text mode; open it with open(path, 'rb')")
        return _decode(io.BytesIO(data), name)
    raise ImageError(
        f"cannot read an image from {type(source).__name__}; "
        "give a path, bytes, an open file, a PIL image, a numpy array or a tensor"
    )


def _from_path(path: Path) -> np.ndarray:
    try:
        if path.is_dir():
            raise ImageError(
                f"{path} is a folder; name a file in it, or give the folder as the input of a command"
            )
        with path.open("rb") as file:
            return _decode(file, str(path))
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist; check the path") from None
    except PermissionError:
        raise ImageError(f"{path} may not be read (permission denied); change its permissions") from None
    except OSError as error:
        raise ImageError(f"{path} cannot be opened ({error.strerror or error}); check the path") from error
    except ValueError as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{str(path)!r} is not a path ({error}); check it") from error  # a NUL character


def _decode(file: IO[bytes], name: str) -> np.ndarray:
    from PIL import Image

    if not file.read(1):
        raise ImageError(f"{name} is empty (0 bytes); copy or download it again")
    file.seek(0)
    with _named_errors(name):
        # Pillow warns from half of its hard limit on, which large photographs reach; the hard limit stays.
        # Filters are global to the process, hence the lock; only the header is read under it.
        with _WARNINGS_LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file)
        with image:
            return _from_pil(image, name)


@contextlib.contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Turns what Pillow raises on foreign files (nearly anything) into an ``ImageError`` about ``name``."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        message = (
            "is not an image that Pillow can read; convert it to PNG or JPEG, or copy it again if damaged"
        )
        raise ImageError(f"{name} {message}") from None
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name} is too large to be decoded safely ({error}); scale it down or cut it into tiles, "
            "or, if you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS"
        ) from None
    except MemoryError:
        raise ImageError(f"{name} needs more memory than there is; scale it down") from None
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ImageError(f"{name} is damaged or cut off ({reason}); copy or download it again") from error


def _from_pil(image: PILImage.Image, name: str) -> np.ndarray:
    from PIL import Image, ImageOps

    if 0 in image.size:
        raise ImageError(f"{name} is empty: {image.width} x {image.height} pixels; give at least 1 x 1")
    image.load()
    with contextlib.suppress(Exception):  # damaged EXIF data does not spoil a good picture
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep(np.asarray(image), name)
    try:
        if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.array(image.convert("RGB"))
    except ValueError:
        message = f"{name} has the colour mode {image.mode}, which is not supported; save it as RGB"
        raise ImageError(message) from None


def _from_deep(values: np.ndarray, name: str) -> np.ndarray:
    """Greyscale of more than 8 bits (Pillow's modes I;16, I and F), (H, W), to RGB."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageError(f"{name} has NaN or infinite values; replace them")
    low, high = values.min(), values.max()
    if values.dtype.kind in "iu" and low >= 0 and high <= 0xFFFF:
        return _to_rgb(values.astype(np.uint16))
    span = float(high) - float(low)
    return _to_rgb((values.astype(np.float64) - float(low)) / (span or 1.0))


def _from_tensor(tensor: Tensor) -> np.ndarray:
    if tensor.ndim == 4:
        raise ImageError(f"got a batch of shape {tuple(tensor.shape)}; give one image, such as tensor[0]")
    if tensor.ndim == 3 and tensor.shape[0] in (1, 3, 4):
        tensor = tensor.permute(1, 2, 0)
    tensor = tensor.detach().cpu()
    return _from_array((tensor.float() if tensor.is_floating_point() else tensor).numpy(), "tensor")


def _from_array(array: np.ndarray, kind: str) -> np.ndarray:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4):
        hint = ""
        if kind == "array" and array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = "; its channels seem to come first: give array.transpose(1, 2, 0)"
        raise ImageError(
            f"an image {kind} is (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {array.shape}{hint}"
        )
    if 0 in array.shape:
        raise ImageError(f"the {kind} is empty: shape {array.shape}; give at least 1 x 1 pixels")
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())  # NaN comes through and fails the comparison
        if not (low >= -_FLOAT_SLACK and high <= 1 + _FLOAT_SLACK):
            raise ImageError(
                f"a floating-point {kind} must lie in [0, 1], got values from {low:.4g} to {high:.4g}; "
                "undo the normalisation, or divide by 255"
            )
    elif array.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"an image {kind} is uint8, uint16 or floating point, got {array.dtype}; convert it")
    return _to_rgb(array)


def _to_rgb(array: np.ndarray) -> np.ndarray:
    """(H, W), (H, W, 1), (H, W, 3) or (H, W, 4) in uint8, uint16 or [0, 1] to uint8 RGB."""
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    elif array.dtype != np.uint8:
        array = np.rint(array.clip(0, 1).astype(np.float32) * 255).astype(np.uint8)
    if array.ndim == 2:
        array = array[..., None]
    if array.shape[-1] == 1:
        return np.repeat(array, 3, axis=-1)
    if array.shape[-1] == 4:
        colour, alpha = array[..., :3].astype(np.uint16), array[..., 3:].astype(np.uint16)
        return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(array)
