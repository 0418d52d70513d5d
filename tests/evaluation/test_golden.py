"""Every method against its authors' code, and the checker against broken cases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ovseg.evaluation.golden.check import check_directory, known_methods
from ovseg.evaluation.golden.parts import check_parts

ROOT = Path(__file__).resolve().parents[2]
OWN = ROOT / "tests" / "golden"
FULL = Path(os.environ.get("OVSEG_GOLDEN", ROOT.parent / "shared" / "golden"))


@pytest.mark.parametrize("method", known_methods())
def test_smallest_case(method):
    checks = list(check_directory(OWN, method))
    assert checks
    assert not [check.line() for check in checks if not check.ok]


@pytest.mark.skipif(not FULL.is_dir(), reason="the full set of golden vectors is not here")
@pytest.mark.parametrize("method", known_methods())
def test_all_cases(method):
    if not (FULL / method).is_dir():
        pytest.skip("made by this project from the authors' code; all cases are in tests/golden")
    assert not [check.line() for check in check_directory(FULL, method) if not check.ok]


def test_parts():
    checks, _ = check_parts(OWN / "parts.json")
    assert len(checks) >= 8
    assert not [check.line() for check in checks if not check.ok]


def run(*arguments):
    command = [sys.executable, str(ROOT / "tools" / "check_golden.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def case(tmp_path):
    """A copy of a case in its folder, to be spoilt."""
    source = next((OWN / "maskclip").glob("*.npz"))
    target = tmp_path / "maskclip" / source.name
    target.parent.mkdir()
    target.write_bytes(source.read_bytes())
    return target


def spoil(path, **changes):
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    arrays.update(changes)
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})


def test_command_passes_and_prints_a_line_per_quantity(case):
    done = run(case.parent.parent)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[2] for line in lines[:-1]] == ["cos", "feat", "logits", "tokens"]
    assert lines[-1] == "4 passed, 0 failed"


def test_a_small_error_is_a_miss(case):
    with np.load(case) as file:
        feat = file["feat"] + np.float32(2e-4)
    spoil(case, feat=feat)
    missed = [check.quantity for check in check_directory(case.parent.parent) if not check.ok]
    assert missed == ["feat"]


def test_wrong_weights_are_a_miss(case):
    with np.load(case) as file:
        weights = file["sd/visual.proj"] * np.float32(1.001)
    spoil(case, **{"sd/visual.proj": weights})
    missed = {check.quantity for check in check_directory(case.parent.parent) if not check.ok}
    assert missed == {"feat"}  # the cosine does not see the scale


def test_nan_shape_and_unknown_quantities_are_misses(case):
    with np.load(case) as file:
        meta = json.loads(str(file["meta"]))
        cos, feat = file["cos"], file["feat"]
    cos[0, 0, 0, 0] = np.nan
    meta["outputs"] = ["cos", "feat", "novelty"]
    spoil(case, cos=cos, feat=feat[:, :-1], novelty=cos, meta=json.dumps(meta))
    assert [check.ok for check in check_directory(case.parent.parent)] == [False] * 3


def test_an_unreadable_case_does_not_hide_the_others(case):
    (case.parent / "a_broken.npz").write_bytes(case.read_bytes()[:1000])
    done = run(case.parent.parent)
    assert done.returncode == 1
    assert "no readable case" in done.stdout
    assert done.stdout.splitlines()[-1] == "4 passed, 1 failed"


def test_an_unknown_method_fails(case):
    case.parent.rename(case.parent.with_name("maskclop"))
    done = run(case.parent.parent.parent / case.parent.parent.name)
    assert done.returncode == 1
    assert "unknown method" in done.stdout


def test_nothing_to_check_is_wrong_use(tmp_path):
    assert run(tmp_path).returncode == 2
    assert run(tmp_path / "missing", "--method", "maskclip").returncode == 2
