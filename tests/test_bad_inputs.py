"""A corpus of bad input, made here: a clear message, the right exit code, neighbours unharmed, no half file.

Some 300 cases: damaged images, word lists, weights, banks, videos, arguments and output folders.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ovseg
from ovseg.cli.main import main
from ovseg.inference.images import ImageError, read_image
from ovseg.inference.results import Failure, SegResult
from ovseg.vocab.vocabulary import Vocabulary

# Images


def _encoded(format: str, mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> bytes:
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


_OTHER = {
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
        f"{kind}.{format}": change(_encoded(format))
        for format in _FORMATS
        for kind, change in _DAMAGE.items()
    },
    **_OTHER,
}


@pytest.mark.parametrize("name", IMAGES, ids=repr)
def test_image_is_read_or_refused_by_name(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(IMAGES[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = read_image(path)
        except ImageError as error:
            assert name in str(error)
        else:
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size


class _Left:
    """A predictor that gives the left half to the first class."""

    def set_vocabulary(self, classes, templates=None):
        self.vocabulary = Vocabulary.of(classes)

    def segment(self, sources, **options):
        for source in sources:
            try:
                image = read_image(source)
            except Exception as error:
                yield Failure(str(source), error)
                continue
            labels = np.full(image.shape[:2], -1, np.int32)
            labels[:, : image.shape[1] // 2] = 0
            scores = np.ones(labels.shape, np.float16)
            yield SegResult(labels, scores, self.vocabulary, source=str(source), image=image)


@pytest.fixture
def predictor(monkeypatch):
    monkeypatch.setattr(ovseg, "load", lambda name, **options: _Left(), raising=False)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(_encoded("png"))
    return path


def test_the_whole_corpus_in_one_folder_harms_no_neighbour(predictor, tmp_path, capsys):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name, data in IMAGES.items():
        (folder / name).write_bytes(data)
    for name in ("a_good.png", "m_good.png", "z_good.png"):
        (folder / name).write_bytes(_encoded("png"))
    arguments = ["--classes", "x", "--format", "png", "--out", str(out)]
    assert main(["segment", str(folder), *arguments]) == 1
    stdout, stderr = capsys.readouterr()
    for name in ("a_good", "m_good", "z_good"):
        assert f"{name}.png.labels.png" in stdout
    assert "Traceback" not in stderr
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()][1:]
    assert len(lines) >= len(IMAGES) - 40  # .ppm and .tga too; names that are outputs' own are not looked at
    failed = {line["file"] for line in lines if "error" in line}
    assert {"empty.jpg", "text.jpg", "huge.png"} <= failed and len(failed) > 60
    for name in failed:
        assert not list(out.glob(f"{name}.labels.*")), name
    assert not list(out.rglob(".ovseg-*")), "a half-written file was left"


# Words

_WORDS: dict[str, list[str]] = {
    "empty": [""],
    "blank": ["  "],
    "twice": ["road", "road"],
    "twice_spaced": ["road", " road "],
    "colon_only": [":"],
    "no_name": [": sky"],
    "no_words": ["sky:"],
    "empty_word": ["sky: a | | b"],
    "word_twice": ["sky: a | a"],
    "bar_without_name": ["a | b"],
    "bang_only": ["!"],
    "bang_blank": ["! "],
    **{
        f"control_{code:02x}": [f"ro{chr(code)}ad"]
        for code in (0, 1, 7, 8, 9, 10, 11, 12, 13, 27, 31, 127, 133)
    },
    "line_separator": ["a\u2028b"],
    "lone_surrogate": ["\ud800"],
}


@pytest.mark.parametrize("name", _WORDS)
def test_words_that_are_none(predictor, photo, tmp_path, capsys, name):
    assert main(["segment", str(photo), "--out", str(tmp_path / "out"), "--classes", *_WORDS[name]]) == 2
    stderr = capsys.readouterr().err.splitlines()[-1]
    assert stderr.startswith("ovseg segment: error: ") and len(stderr) > 40
    assert not (tmp_path / "out").exists()


_WORD_FILES: dict[str, bytes] = {
    "empty.txt": b"",
    "comments.txt": b"# a\n#b\n\n",
    "latin1.txt": b"caf\xe9\n",
    "utf16.txt": "road\ncar\n".encode("utf-16"),
    "nul.txt": b"road\0car\n",
    "twice.txt": b"road\nroad\n",
    "image.txt": _encoded("png"),
    "broken.json": b"{",
    "number.json": b"3",
    "null.json": b"null",
    "empty_list.json": b"[]",
    "numbers.json": b"[1, 2]",
    "nested.json": b'[["road"]]',
    "no_classes.json": b"{}",
    "classes_text.json": b'{"classes": "road"}',
    "no_name.json": b'{"classes": [{"words": ["a"]}]}',
    "words_text.json": b'{"classes": [{"name": "a", "words": "a"}]}',
    "colour.json": b'{"classes": [{"name": "a", "colour": [1, 2]}]}',
    "background.json": b'{"classes": [{"name": "a", "background": "yes"}]}',
    "deep.json": b"[" * 5000,
    "latin1.json": b'["caf\xe9"]',
}


@pytest.mark.parametrize("name", _WORD_FILES)
def test_word_files_that_are_none(predictor, photo, tmp_path, capsys, name):
    path = tmp_path / name
    path.write_bytes(_WORD_FILES[name])
    assert main(["segment", str(photo), "--out", str(tmp_path / "out"), "--vocab", str(path)]) == 2
    assert "Traceback" not in (stderr := capsys.readouterr().err) and "error: " in stderr


def test_ten_thousand_words(predictor, photo, tmp_path, capsys):
    path = tmp_path / "many.txt"
    path.write_text("".join(f"thing number {i}\n" for i in range(10_000)))
    formats = ["--format", "overlay,png,npz,coco,labelme", "--out", str(tmp_path / "out")]
    assert main(["segment", str(photo), "--vocab", str(path), *formats]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_a_format_that_does_not_hold_so_many_fails_only_there(predictor, photo, tmp_path, capsys):
    classes = [f"thing {i}" for i in range(300)]
    out = ["--format", "png,voc", "--out", str(tmp_path / "out")]
    assert main(["segment", str(photo), "--classes", *classes, *out]) == 1
    stdout, stderr = capsys.readouterr()
    assert "labels.png" in stdout and "voc holds at most 254 classes" in stderr


# Weights


class Malice:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code was run')",))


def _weights() -> dict[str, object]:
    import torch

    torch.manual_seed(0)
    return {
        "visual.proj": torch.randn(8, 4),
        "text_projection": torch.randn(8, 4),
        "logit_scale": torch.ones(()),
    }


def _torch_bytes(data: object) -> bytes:
    import torch

    file = io.BytesIO()
    torch.save(data, file)
    return file.getvalue()


def _safe_bytes(changes: Callable[[dict], dict] = lambda weights: weights) -> bytes:
    from safetensors.torch import save

    return save(changes(_weights()))


def _nan(weights: dict) -> dict:
    weights["visual.proj"][1, 2] = float("nan")
    return weights


_WEIGHTS: dict[str, Callable[[], bytes]] = {
    "empty.pt": lambda: b"",
    "empty.safetensors": lambda: b"",
    "text.pt": lambda: b"weights",
    "text.safetensors": lambda: b"weights",
    "page.pt": lambda: b"<html>sign in</html>",
    "pointer.safetensors": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "malice.pt": lambda: pickle.dumps(Malice()),
    "malice_inside.pt": lambda: pickle.dumps({"state_dict": {"visual.proj": Malice()}}),
    "malice_torch.pt": lambda: _torch_bytes({"state_dict": _weights(), "args": Malice()}),
    "malice.safetensors": lambda: pickle.dumps(Malice()),
    "number.pt": lambda: _torch_bytes(3),
    "tensor.pt": lambda: _torch_bytes(_weights()["visual.proj"]),
    "nothing.pt": lambda: _torch_bytes({}),
    "no_tensors.pt": lambda: _torch_bytes({"epoch": 3}),
    "other.pt": lambda: _torch_bytes({"fc.weight": _weights()["visual.proj"]}),
    "few.pt": lambda: _torch_bytes(_weights()),
    "few.safetensors": _safe_bytes,
    "nan.safetensors": lambda: _safe_bytes(_nan),
    "cut_10.pt": lambda: _torch_bytes(_weights())[:200],
    "cut_90.pt": lambda: _torch_bytes(_weights())[:-100],
    "cut.safetensors": lambda: _safe_bytes()[:-20],
    "long_header.safetensors": lambda: b"\xff" * 8 + b"{}",
    "bad_header.safetensors": lambda: struct.pack("<Q", 4) + b"abcd",
    "image.pt": lambda: _encoded("png"),
}


@pytest.mark.parametrize("name", _WEIGHTS)
def test_weights_that_are_none(photo, tmp_path, capsys, name):
    path = tmp_path / name
    path.write_bytes(_WEIGHTS[name]())
    arguments = ["--method", "maskclip", "--tower", str(path), "--activation", "gelu"]
    code = main(["segment", str(photo), "--classes", "x", *arguments, "--out", str(tmp_path / "out")])
    stderr = capsys.readouterr().err
    assert code in (1, 2) and name in stderr and "Traceback" not in stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [name for name in _WEIGHTS if name.endswith(".safetensors")])
def test_banks_that_are_none(tmp_path, name):
    from ovseg.vocab.bank_file import load_bank

    (tmp_path / name).write_bytes(_WEIGHTS[name]())
    with pytest.raises(ValueError, match=name):
        load_bank(tmp_path / name)


# Videos


@pytest.mark.parametrize("name", [*_OTHER, "cut_50.png"], ids=repr)
def test_videos_that_are_none(tmp_path, name):
    pytest.importorskip("av")
    from ovseg.inference.video_source import VideoError, open_video

    path = tmp_path / Path(name).with_suffix(".mp4").name
    path.write_bytes(IMAGES[name])
    try:
        frames = list(open_video(path))  # a picture is a video of one frame to FFmpeg
    except VideoError as error:
        assert path.name in str(error)
    else:
        assert len(frames) <= 1


# Arguments

_ARGUMENTS: dict[str, list[str]] = {
    "no_input": ["segment", "--classes", "x"],
    "no_classes": ["segment", "{photo}"],
    "both": ["segment", "{photo}", "--classes", "x", "--vocab", "ade150"],
    "missing": ["segment", "nowhere.png", "--classes", "x"],
    "empty_folder": ["segment", "{empty}", "--classes", "x"],
    "pattern": ["segment", "{empty}/*.png", "--classes", "x"],
    "nul": ["segment", "a\0b", "--classes", "x"],
    "list": ["segment", "{photo}", "--vocab", "ade15"],
    "list_file": ["segment", "{photo}", "--vocab", "nowhere.txt"],
    "list_folder": ["segment", "{photo}", "--vocab", "{empty}"],
    "format": ["segment", "{photo}", "--classes", "x", "--format", "gif"],
    "no_format": ["segment", "{photo}", "--classes", "x", "--format", ""],
    "background": ["segment", "{photo}", "--classes", "x", "--background", "perhaps"],
    "floor": ["segment", "{photo}", "--classes", "x", "--background", "floor=2"],
    "floor_text": ["segment", "{photo}", "--classes", "x", "--background", "floor=x"],
    "floor_nan": ["segment", "{photo}", "--classes", "x", "--background", "floor=nan"],
    "margin": ["segment", "{photo}", "--classes", "x", "--background", "margin"],
    "templates": ["segment", "{photo}", "--classes", "x", "--templates", "none"],
    "batch": ["segment", "{photo}", "--classes", "x", "--batch-size", "0"],
    "batch_text": ["segment", "{photo}", "--classes", "x", "--batch-size", "many"],
    "method_alone": ["segment", "{photo}", "--classes", "x", "--method", "maskclip"],
    "tower_alone": ["segment", "{photo}", "--classes", "x", "--tower", "vit_b16.openai"],
    "activation_alone": ["segment", "{photo}", "--classes", "x", "--activation", "gelu"],
    "activation": ["segment", "{photo}", "--classes", "x", "--activation", "relu"],
    "threshold": ["detect", "{photo}", "--classes", "x", "--threshold", "2"],
    "proposals": ["detect", "{photo}", "--classes", "x", "--proposals", "nowhere.npz"],
    "detect_format": ["detect", "{photo}", "--classes", "x", "--format", "png"],
    "place": ["explain", "{photo}", "--at", "here"],
    "no_place": ["explain", "{photo}"],
    "method": ["compare", "{photo}", "--classes", "x", "--methods", "nobody"],
    "vocab": ["vocab", "show"],
    "action": ["vocab", "eat"],
    "models": ["models", "nobody*"],
    "command": ["eat"],
    "nothing": [],
}


@pytest.mark.parametrize("name", _ARGUMENTS)
def test_arguments_that_are_wrong(predictor, photo, tmp_path, capsys, name):
    (tmp_path / "empty").mkdir()
    arguments = [text.format(photo=photo, empty=tmp_path / "empty") for text in _ARGUMENTS[name]]
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    stdout, stderr = capsys.readouterr()
    assert code == 2 and not stdout
    assert "error: " in stderr and "Traceback" not in stderr


# Outputs

_TRIED = ["overlay", "png", "coco", "npz", "labelme", "yolo", "voc"]


@pytest.mark.parametrize("format", _TRIED)
@pytest.mark.parametrize("obstacle", ["file", "folder", "read_only"])
def test_outputs_that_cannot_be_written(predictor, photo, tmp_path, capsys, format, obstacle):
    from ovseg.inference.writers import output_path

    out = tmp_path / "out"
    target = output_path(out, "photo.png", format)
    if obstacle == "file":
        out.write_text("a file")
    elif obstacle == "folder":
        target.mkdir(parents=True)
    else:
        out.mkdir(mode=0o500)
        if os.access(out, os.W_OK):
            pytest.skip("root may write everywhere")
    code = main(["segment", str(photo), "--classes", "x", "--format", format, "--out", str(out)])
    stderr = capsys.readouterr().err
    assert code == 1 and "cannot write" in stderr and "Traceback" not in stderr
    assert not list(tmp_path.rglob(".ovseg-*"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits on file sizes")
@pytest.mark.parametrize("format", _TRIED)
def test_a_full_disk(predictor, tmp_path, capsys, format):
    import resource

    photo = tmp_path / "photo.png"
    photo.write_bytes(_encoded("png", size=(400, 300)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        code = main(
            ["segment", str(photo), "--classes", "x", "--format", format, "--out", str(tmp_path / "out")]
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 1 and "cannot write" in capsys.readouterr().err
    left = [path.name for path in (tmp_path / "out").iterdir()]
    assert left in ([], ["manifest.jsonl"])


def test_there_are_enough_cases():
    tables = (IMAGES, _WORDS, _WORD_FILES, _WEIGHTS, _ARGUMENTS)
    assert sum(map(len, tables)) + len(_OTHER) + 3 * len(_TRIED) >= 200
