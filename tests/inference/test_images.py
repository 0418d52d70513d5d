from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ovseg.inference.images import ImageError, read_image
from ovseg.inference.source_files import expand_sources


def picture(height: int = 12, width: int = 20) -> np.ndarray:
    """Smooth, so that lossy formats come close."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], -1).astype(
        np.uint8
    )


def encode(pixels: np.ndarray, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


# Kinds of source


def test_the_same_picture_from_every_kind_of_source(tmp_path: Path) -> None:
    import torch

    pixels = picture()
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    floats = pixels.astype(np.float64) / 255
    sources = {
        "path": path,
        "str": str(path),
        "bytes": path.read_bytes(),
        "stream": io.BytesIO(path.read_bytes()),
        "pil": Image.fromarray(pixels),
        "uint8": pixels,
        "uint16": pixels.astype(np.uint16) * 257,
        "float64": floats,
        "float32": floats.astype(np.float32),
        "view": pixels[:, ::-1][:, ::-1],
        "tensor, channels last": torch.from_numpy(pixels),
        "tensor, channels first": torch.from_numpy(floats).permute(2, 0, 1).requires_grad_(),
    }
    for name, source in sources.items():
        read = read_image(source)
        assert read.dtype == np.uint8 and read.flags.c_contiguous, name
        np.testing.assert_array_equal(read, pixels, err_msg=name)
    with path.open("rb") as file:
        np.testing.assert_array_equal(read_image(file), pixels)
    np.testing.assert_allclose(read_image(torch.from_numpy(floats).bfloat16()), pixels, atol=1)


def test_grey_and_alpha_arrays() -> None:
    grey = picture()[..., 0]
    for array in (grey, grey[..., None]):
        np.testing.assert_array_equal(read_image(array), np.stack([grey] * 3, -1))
    rgba = np.dstack([picture(), np.full((12, 20), 0, np.uint8)])
    rgba[:6, :, 3] = 255
    read = read_image(rgba)
    np.testing.assert_array_equal(read[:6], picture()[:6])
    assert (read[6:] == 255).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 5, 3), np.uint8), "empty"),
        (np.zeros((3, 40, 50), np.uint8), r"array\.transpose\(1, 2, 0\)"),
        (np.zeros((1, 40, 50, 3), np.uint8), r"\(1, 40, 50, 3\)"),
        (np.zeros(5, np.uint8), r"\(5,\)"),
        (np.zeros((4, 4, 2), np.uint8), r"\(4, 4, 2\)"),
        (np.full((4, 4, 3), 128.0), r"\[0, 1\].*divide by 255"),
        (np.full((4, 4, 3), -1.0), "undo the normalisation"),
        (np.full((4, 4, 3), np.nan), "nan"),
        (np.full((4, 4, 3), np.inf, np.float32), "inf"),
        (np.zeros((4, 4, 3), np.int64), "int64; convert it"),
        (np.zeros((4, 4, 3), bool), "bool; convert it"),
    ],
)
def test_arrays_of_another_kind(array: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_image(array)


def test_other_objects() -> None:
    import torch

    with pytest.raises(ImageError, match="NoneType"):
        read_image(None)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=r"batch.*tensor\[0\]"):
        read_image(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ImageError, match="text mode"):
        read_image(io.StringIO("not bytes"))  # type: ignore[arg-type]


def test_reading_files_does_not_import_torch(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture()).save(path)
    code = (
        "import sys; from ovseg.inference.images import read_image;"
        f"read_image({str(path)!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Formats and modes


@pytest.mark.parametrize("format", ["jpeg", "webp", "tiff", "bmp", "ppm", "tga", "png"])
def test_formats(format: str) -> None:
    read = read_image(encode(picture(48, 64), format))
    np.testing.assert_allclose(read.astype(int), picture(48, 64), atol=12)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    upright = Image.fromarray(picture(48, 64))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    read = read_image(encode(np.asarray(stored), "jpeg", exif=exif, quality=95))
    np.testing.assert_allclose(read.astype(int), np.asarray(upright), atol=12)


def test_damaged_exif_does_not_spoil_the_picture() -> None:
    data = encode(picture(48, 64), "jpeg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    assert read_image(data).shape == (48, 64, 3)


def test_16_bit_greyscale_png_and_tiff() -> None:
    deep = np.linspace(0, 0xFFFF, 300).astype(np.uint16).reshape(15, 20)
    for format in ("png", "tiff"):
        np.testing.assert_array_equal(read_image(encode(deep, format))[..., 1], deep >> 8)
    turned = Image.fromarray(deep)
    np.testing.assert_array_equal(read_image(turned)[..., 0], deep >> 8)


def test_32_bit_files() -> None:
    values = np.linspace(-3, 7, 200, dtype=np.float32).reshape(10, 20)
    read = read_image(encode(values, "tiff"))
    assert read[0, 0, 0] == 0 and read[-1, -1, 2] == 255
    assert (np.diff(read[..., 0].ravel().astype(int)) >= 0).all()
    assert read_image(encode(np.full((4, 4), 5e5, np.float32), "tiff")).max() == 0
    np.testing.assert_array_equal(read_image(Image.fromarray(np.full((2, 2), 0x1234, np.int32))), 0x12)
    with pytest.raises(ImageError, match="NaN"):
        read_image(encode(np.full((4, 4), np.nan, np.float32), "tiff"))


def test_cmyk_palette_grey_and_one_bit() -> None:
    red = np.zeros((8, 8, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    cmyk = io.BytesIO()
    Image.fromarray(red).convert("CMYK").save(cmyk, "jpeg", quality=95)
    np.testing.assert_allclose(read_image(cmyk.getvalue()).astype(int), red, atol=12)
    palette = io.BytesIO()
    Image.fromarray(red).quantize(4).save(palette, "png")
    np.testing.assert_array_equal(read_image(palette.getvalue()), red)
    np.testing.assert_array_equal(read_image(Image.new("1", (3, 2), 1)), 255)
    np.testing.assert_array_equal(read_image(Image.new("L", (3, 2), 7)), 7)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBa", "PA"])
def test_transparent_pixels_become_white(mode: str) -> None:
    read = read_image(Image.new("RGBA", (4, 4), (10, 20, 30, 0)).convert(mode))
    np.testing.assert_array_equal(read, 255)


def test_transparency_of_palettes_and_colour_keys() -> None:
    gif = io.BytesIO()
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 0, 0])
    image.save(gif, "gif", transparency=1)
    np.testing.assert_array_equal(read_image(gif.getvalue()), 255)
    np.testing.assert_array_equal(read_image(encode(picture(), "png", transparency=(1, 2, 3))), picture())


@pytest.mark.parametrize("format", ["gif", "webp", "png", "tiff"])
def test_first_frame_of_an_animation(format: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    data = io.BytesIO()
    frames[0].save(data, format, save_all=True, append_images=frames[1:])
    read = read_image(data.getvalue())
    np.testing.assert_allclose(read[8, 8].astype(int), [255, 0, 0], atol=6)


def test_extreme_shapes() -> None:
    for shape in ((1, 1), (3, 20000), (20000, 3)):
        assert read_image(encode(np.zeros((*shape, 3), np.uint8), "png")).shape == (*shape, 3)


def test_unsupported_colour_mode_is_named() -> None:
    with pytest.raises(ImageError, match=r"colour mode La.*RGB"):
        read_image(Image.new("LA", (4, 4)).convert("La"))


# What is no image


@pytest.mark.parametrize("format", ["png", "jpeg", "gif", "webp", "tiff", "bmp"])
@pytest.mark.parametrize("kept", [0.5, 0.98])
def test_truncated_file(tmp_path: Path, format: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(noise, format)
    path = tmp_path / f"cut.{format}"
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ImageError, match=rf"cut\.{format} .*(again|damaged)"):
        read_image(path)


def test_files_that_are_no_image(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("These are words.")
    (tmp_path / "zeros.png").write_bytes(bytes(1000))
    for name, message in {
        "empty.jpg": "is empty",
        "text.jpg": "is not an image.*convert",
        "zeros.png": "is not an image",
        "absent.jpg": "does not exist; check",
        "": "is a folder",
        "a\0b.jpg": "is not a path",
        "text.jpg/x.jpg": "cannot be opened",
    }.items():
        with pytest.raises(ImageError, match=message):
            read_image(f"{tmp_path}/{name}")


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_file_is_an_image_error_or_an_image(seed: int) -> None:
    rng = np.random.default_rng(seed)
    format = ["png", "jpeg", "gif", "webp", "tiff", "bmp"][seed % 6]
    data = bytearray(encode(picture(32, 32), format))
    for place in rng.integers(0, len(data), 8):
        data[place] = rng.integers(256)
    try:
        read = read_image(bytes(data))
    except ImageError as error:
        assert "image bytes" in str(error) and ";" in str(error)
    else:
        assert read.dtype == np.uint8 and read.ndim == 3


def test_decompression_bomb(monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> None:
    data = encode(np.zeros((40, 40, 3), np.uint8), "png")
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 1000
    )  # Pillow warns above it and refuses above twice of it
    assert read_image(data).shape == (40, 40, 3)
    assert not recwarn.list
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match=r"too large.*cut it into tiles"):
        read_image(data)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read anything")
def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(ImageError, match="permission"):
        read_image(path)


# Lists of sources


def test_a_source_file_can_be_read(tmp_path: Path) -> None:
    image = Image.new("RGB", (6, 4))
    ImageDraw.Draw(image).point((1, 2), "white")
    image.save(tmp_path / "a.png")
    (source,) = expand_sources([tmp_path])
    assert read_image(source)[2, 1].tolist() == [255, 255, 255]
    assert str(source) == str(tmp_path / "a.png")
