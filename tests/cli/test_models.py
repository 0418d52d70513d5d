from __future__ import annotations

import subprocess
import sys

from ovseg.cli.main import main
from ovseg.methods.registry import get_method, list_models, zoo_row


def test_lists_every_model_in_columns_apart_by_tabs(capsys):
    assert main(["models"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == list_models()
    embedded = zoo_row("maskclip_vit_tiny.emoji")
    code = get_method("maskclip").code_licence
    assert [embedded.name, "maskclip", "vit_tiny.emoji", embedded.licence, code, embedded.note] in rows


def test_a_pattern_without_wildcards_is_part_of_the_name(capsys):
    main(["models", "vit_b16"])
    part = capsys.readouterr().out
    main(["models", "*vit_b16*"])
    assert part == capsys.readouterr().out
    assert "vit_b16" in part and "vit_tiny" not in part


def test_no_match_is_wrong_use(capsys):
    assert main(["models", "segformer"]) == 2
    assert "'segformer'" in capsys.readouterr().err


def test_a_terminal_gets_a_table(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "160")
    main(["models", "maskclip*"])
    out = capsys.readouterr().out
    assert "licence" in out.splitlines()[0]
    assert "\t" not in out


def test_needs_no_torch():
    code = "import sys; from ovseg.cli.main import main; main(['models']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
