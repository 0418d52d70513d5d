"""The wheel holds everything, and works where nothing else is installed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from PIL import Image

import ovseg

_ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel built from a copy of the checkout, so that nothing old lies in its way and nothing stays behind."""
    pytest.importorskip("build")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(_ROOT / name, source)
    shutil.copytree(_ROOT / "ovseg", source / "ovseg", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_wheel_holds_every_file_of_the_package(wheel):
    here = {p.relative_to(_ROOT).as_posix() for p in (_ROOT / "ovseg").rglob("*") if p.is_file()}
    here = {name for name in here if "__pycache__" not in name}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("ovseg/")}
    assert packed == here
    assert {"ovseg/py.typed", "ovseg/vocab/templates.json", "ovseg/assets/demo/scenes.json"} <= packed


def test_wheel_carries_the_licence(wheel):
    licences = [n for n in zipfile.ZipFile(wheel).namelist() if n.endswith(".dist-info/licenses/LICENSE")]
    assert zipfile.ZipFile(wheel).read(licences[0]) == (_ROOT / "LICENSE").read_bytes()


def test_versions_agree():
    (cited,) = re.findall(r"^version: (.+)$", (_ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited == ovseg.__version__


def test_one_version_of_opencv():
    """The two distributions share the folder cv2/: of different versions they would be a mixture."""
    with contextlib.suppress(PackageNotFoundError):  # if only one of them is here, that is just as well
        assert version("opencv-python") == version("opencv-python-headless")


@pytest.mark.slow
def test_wheel_works_in_an_empty_environment(wheel, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"OVSEG_OFFLINE": "1", "OVSEG_CACHE": str(tmp_path / "cache")}
    binaries = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")

    def run(*command: object) -> str:
        command = tuple(map(str, command))
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "venv", "venv")
    run(binaries / "python", "-m", "pip", "install", wheel)
    run(binaries / "python", "-m", "pip", "check")
    overlays = run(binaries / "ovseg", "demo").splitlines()
    assert len(overlays) == 2
    assert all((tmp_path / path).suffix == ".png" and (tmp_path / path).exists() for path in overlays)
    Image.new("RGB", (300, 200), "white").save(tmp_path / "image.jpg")
    assert len(run(binaries / "ovseg", "segment", "image.jpg", "--classes", "cat", "dog").splitlines()) == 2
