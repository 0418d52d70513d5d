from __future__ import annotations

import os
import subprocess
import sys

import pytest

import ovseg
from ovseg.cli.main import main


def _segment(photo, *more):
    return main(["segment", str(photo), "--classes", "road", *more])


def _failing_with(error):
    def load(name, **options):
        raise error

    return load


def test_ctrl_c_is_130_and_one_line(monkeypatch, photo, capsys):
    monkeypatch.setattr(ovseg, "load", _failing_with(KeyboardInterrupt()), raising=False)
    assert _segment(photo, "--model", "m") == 130
    assert capsys.readouterr().err.splitlines()[-1] == "ovseg: stopped; files written so far are complete"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("no model 'm'; near: n"), 2, "ovseg segment: error: no model 'm'; near: n"),
        (FileNotFoundError("no weight file at x.pt"), 2, "ovseg segment: error: no weight file at x.pt"),
        (OSError("weights are not here. Fetch X"), 1, "ovseg segment: error: weights are not here. Fetch X"),
        (KeyError("x"), 1, "ovseg segment: error: KeyError: 'x' (--debug shows where)"),
    ],
)
def test_errors_are_one_line(monkeypatch, photo, capsys, error, code, line):
    monkeypatch.setattr(ovseg, "load", _failing_with(error), raising=False)
    assert _segment(photo, "--model", "m") == code
    assert capsys.readouterr().err.splitlines()[-1] == line


def test_debug_raises(monkeypatch, photo):
    monkeypatch.setattr(ovseg, "load", _failing_with(KeyError("x")), raising=False)
    with pytest.raises(KeyError):
        _segment(photo, "--model", "m", "--debug")


def test_version_and_no_command(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"ovseg {ovseg.__version__}\n"
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2


_PRINTING = """if True:
    import sys
    from ovseg.cli import models
    from ovseg.cli.main import main
    models.run = lambda args: print("a row") or 0
    sys.exit(main(["models"]))"""


def test_a_closed_pipe_is_no_traceback():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", _PRINTING], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_under_stdout_is_no_traceback(unbuffered):
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", _PRINTING], stdout=full, stderr=subprocess.PIPE, text=True, env=environment
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
