"""``ovseg doctor``: what this installation has, lacks, and trips over."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata

import ovseg

__all__ = ["add_parser", "run"]

_CORE = ("torch", "torchvision", "open_clip_torch", "numpy", "Pillow", "opencv-python", "pycocotools")
_FORKS = ("mmengine", "mmcv", "mmsegmentation", "mmdetection")
_UPSTREAM = ("mmengine", "mmcv", "mmcv-full", "mmcv-lite", "mmsegmentation", "mmdet")
_EXTRAS = {
    "video": ("av", "video files"),
    "supervision": ("supervision", "to_supervision()"),
    "board": ("tensorboard", "curves of trainings"),
    "emoji": ("resvg_py", "the EmojiScenes data set"),
}

_Line = tuple[str, str, str]  # what, how it is, advice


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Registers the sub-command."""
    parser = subparsers.add_parser(
        "doctor",
        help="check this installation",
        description="Print versions, clashes, devices, extras and what is cached, with advice.",
    )
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Prints a line each, columns apart by tabs. Returns 1 if something is broken, else 0."""
    broken = False
    for what, state, advice in (*_versions(), *_clashes(), *_devices(), *_extras(), *_cached()):
        broken |= state.startswith("BROKEN")
        print("\t".join(filter(None, (what, state, advice))))
    return int(broken)


def _versions() -> Iterator[_Line]:
    yield "ovseg", ovseg.__version__, ""
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}", ""
    for name in (*_CORE, *(f"onedl-{fork}" for fork in _FORKS)):
        version = _version(name)
        yield ((name, version, "") if version else (name, "BROKEN: not installed", f"pip install {name}"))


def _clashes() -> Iterator[_Line]:
    for name in _UPSTREAM:
        if _version(name):
            fork = "onedl-" + {"mmdet": "mmdetection"}.get(name, name.partition("-")[0])
            cure = f"pip uninstall -y {name} {fork} && pip install {fork}"
            yield f"{name} beside {fork}", "BROKEN: both own one import name", cure
    plain, headless = _version("opencv-python"), _version("opencv-python-headless")
    if plain and headless and plain != headless:
        state = f"BROKEN: opencv-python {plain} over opencv-python-headless {headless}"
        yield "cv2", state, f"pip install --force-reinstall opencv-python=={headless}"


def _devices() -> Iterator[_Line]:
    try:
        import torch
    except Exception as error:
        yield "devices", f"BROKEN: torch does not load ({error})", "pip install --force-reinstall torch"
        return
    yield "cpu", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads", ""
    for i in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(i)
        name = torch.cuda.get_device_name(i)
        yield f"cuda:{i}", f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GB free", ""
    if torch.backends.mps.is_available():
        yield "mps", "available", ""
    elif not torch.cuda.is_available():
        yield "gpu", "none", "all runs on the CPU; small towers and --batch-size 1 keep it bearable"
    built = importlib.util.find_spec("mmcv._ext") if importlib.util.find_spec("mmcv") else None
    yield "mmcv ops", "compiled" if built else "replaced by ovseg.ops.mmcv_ext", ""


def _extras() -> Iterator[_Line]:
    for extra, (module, purpose) in _EXTRAS.items():
        if importlib.util.find_spec(module):
            yield f"extra {extra}", "installed", ""
        else:
            yield f"extra {extra}", "not installed", f"for {purpose}: pip install 'ovseg[{extra}]'"


def _cached() -> Iterator[_Line]:
    from ovseg.towers.download import cache_dir, is_offline

    folder = cache_dir()
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    size = sum(path.stat().st_size for path in files) / 2**20
    yield "cache", f"{folder}: {len(files)} files, {size:.0f} MB", ""
    for path in sorted(path for path in files if path.parent.name != "text" and path.stat().st_size > 2**20):
        yield "  cached", str(path.relative_to(folder)), ""
    if not os.access(_existing(str(folder)), os.W_OK):
        yield "cache", "BROKEN: it cannot be written", "set OVSEG_CACHE to a folder that can"
    if is_offline():
        yield "network", "OVSEG_OFFLINE is set: nothing is fetched", ""
    if sys.stdout.encoding and sys.stdout.encoding.lower().replace("-", "") != "utf8":
        yield "terminal", f"encoding {sys.stdout.encoding}", "set PYTHONUTF8=1 to see all names"


def _existing(path: str) -> str:
    """The path, or the nearest folder above it that exists."""
    while not os.path.exists(path):
        path = os.path.dirname(path) or "."
    return path


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
