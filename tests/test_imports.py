"""Starting is quick: what takes long to import is imported when it is needed."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from ovseg.cli.main import COMMANDS

_HEAVY = ("torch", "numpy", "rich", "PIL", "cv2", "timm", "open_clip", "mmengine", "mmcv", "mmseg", "mmdet")
_NAMES = [command.__name__.rpartition(".")[2] for command in COMMANDS]


def _modules_after(code: str) -> set[str]:
    code += "\nimport sys; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_importing_ovseg_imports_nothing_heavy():
    assert not _modules_after("import ovseg").intersection(_HEAVY)


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in _NAMES)], ids=" ".join)
def test_help_imports_nothing_heavy(arguments):
    code = f"from ovseg.cli.main import main\ntry: main({arguments})\nexcept SystemExit: pass"
    assert not _modules_after(code).intersection(_HEAVY)


def test_help_is_quick():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "ovseg", "--help"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1.0, "0.05 s on an idle machine; the project promises 0.3 s"


def test_a_predictor_does_not_import_what_only_boxes_need():
    assert not _modules_after("import ovseg.api").intersection({"torchvision", "torch._dynamo", "scipy"})
