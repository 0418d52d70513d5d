"""Weights and banks that are none are refused by name, and no code in them is run."""

from __future__ import annotations

import pytest
from bad_weights import WEIGHTS

from ovseg.cli.main import main


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_none(photo, tmp_path, capsys, name):
    path = tmp_path / name
    path.write_bytes(WEIGHTS[name]())
    arguments = ["--method", "maskclip", "--tower", str(path), "--activation", "gelu"]
    code = main(["segment", str(photo), "--classes", "x", *arguments, "--out", str(tmp_path / "out")])
    stderr = capsys.readouterr().err
    assert code in (1, 2) and name in stderr and "Traceback" not in stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [name for name in WEIGHTS if name.endswith(".safetensors")])
def test_banks_that_are_none(tmp_path, name):
    from ovseg.vocab.bank_file import load_bank

    (tmp_path / name).write_bytes(WEIGHTS[name]())
    with pytest.raises(ValueError, match=name):
        load_bank(tmp_path / name)
