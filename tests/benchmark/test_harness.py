from __future__ import annotations

import importlib.util
import json
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import ovseg.benchmark
from ovseg.benchmark import harness
from ovseg.benchmark.harness import compare, compare_times, max_difference, peak_memory, time_command, time_ms

_TOOL = Path(__file__).parents[2] / "tools" / "benchmark.py"


def test_both_sides_take_turns_and_the_ratio_says_how_much_faster_we_are(monkeypatch):
    calls, seconds_gone = [], [0.0]
    monkeypatch.setattr(harness, "time", types.SimpleNamespace(perf_counter=lambda: seconds_gone[0]))

    def side(name: str, seconds: float) -> torch.Tensor:
        calls.append(name)
        seconds_gone[0] += seconds
        return torch.tensor([1.0, 2.0 + (name == "b") / 8])

    line = compare("x.y", lambda: side("a", 0.01), lambda: side("b", 0.04), repeats=3, size=5)
    assert calls == ["a", "b"] * 4
    assert (line["ratio"], line["ratio_range"]) == (4, [4, 4])
    assert (line["ours_ms"], line["reference_ms"]) == (10, 40)
    assert (line["difference"], line["size"], line["name"]) == (0.125, 5, "x.y")
    assert line["threads"] == torch.get_num_threads()
    assert {"torch", "python", "cpu", "load"} <= set(json.loads(json.dumps(line)))


def test_a_difference_of_the_callers_own():
    assert (
        compare("x", lambda: "a", lambda: "b", repeats=1, difference=lambda *both: len(both))["difference"]
        == 2
    )


def test_without_a_comparison_the_difference_is_null():
    line = compare("x", lambda: 1, lambda: "b", repeats=1, difference=None)
    assert json.loads(json.dumps(line))["difference"] is None


def test_the_ratio_is_the_median_over_the_turns():
    line = compare_times("x", [1.0, 2.0, 10.0], [4.0, 4.0, 20.0], size=3)
    assert (line["ratio"], line["ratio_range"], line["repeats"], line["size"]) == (2, [2, 4], 3, 3)
    assert (line["ours_ms"], line["reference_ms"]) == (2, 4)


def test_max_difference():
    assert max_difference(torch.ones(2, requires_grad=True), np.array([1.0, 0.5])) == 0.5
    assert max_difference(np.uint8([1]), np.uint8([2])) == 1
    with pytest.raises(ValueError, match="shapes"):
        max_difference(torch.ones(2), torch.ones(3))


def test_time_is_the_median_without_the_first_run():
    waits = iter([0.1, 0.0, 0.0, 0.1])
    assert time_ms(lambda: time.sleep(next(waits)), repeats=3) < 50


def test_commands():
    assert time_command([sys.executable, "-S", "-c", "pass"], repeats=1) > 0
    with pytest.raises(RuntimeError, match=r"ended with 3: oh no"):
        time_command([sys.executable, "-c", "import sys; sys.stderr.write('oh no'); sys.exit(3)"])


def prepare(megabytes: int) -> Callable[[], object]:
    """A step that touches this much memory, after preparations that touched none."""
    return lambda: np.ones(megabytes * 2**17)


@pytest.mark.slow
def test_memory_is_that_of_the_step_and_not_of_this_process(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    ballast = np.ones(2**26)  # 512 MB here must not show there
    added = peak_memory(prepare, megabytes=200)
    assert 150 * 2**20 < added < 300 * 2**20, len(ballast)
    with pytest.raises(RuntimeError, match="failed in its own process"):
        peak_memory(prepare, gigabytes=1)


def test_the_tool_prints_and_writes_a_line_per_measurement(monkeypatch, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("benchmark_tool", _TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert "text" in tool.NAMES
    assert not {"harness", "replay"} & set(tool.NAMES)
    fake = types.SimpleNamespace(run=lambda: iter([{"name": "a", "ms": 1}, {"name": "b", "ms": 2}]))
    monkeypatch.setitem(sys.modules, "ovseg.benchmark.text", fake)
    assert tool.main(["text", "--json", str(tmp_path / "out.jsonl")]) == 0
    printed = capsys.readouterr().out
    assert [json.loads(line)["name"] for line in printed.splitlines()] == ["a", "b"]
    assert (tmp_path / "out.jsonl").read_text() == printed
    with pytest.raises(SystemExit) as stop:
        tool.main(["nothing"])
    assert stop.value.code == 2
    with pytest.raises(SystemExit):
        tool.main(["text", "--row", "a"])
    assert "no rows to choose from" in capsys.readouterr().err
    fake.run, fake.ROWS = lambda rows: iter([{"rows": rows}]), ("a", "b")
    assert tool.main(["text", "--row", "b"]) == 0
    assert json.loads(capsys.readouterr().out) == {"rows": ["b"]}
    with pytest.raises(SystemExit):
        tool.main(["text", "--row", "c"])
    assert "its rows: a, b" in capsys.readouterr().err


def test_every_benchmark_has_a_run():
    for path in Path(ovseg.benchmark.__path__[0]).glob("*.py"):
        if path.stem not in ("__init__", "harness", "replay"):
            assert "def run(" in path.read_text(), path.name
