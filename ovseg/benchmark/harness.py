"""How this project measures: ratios, both sides in one process, same inputs, outputs compared.

A benchmark is a module ``ovseg/benchmark/<name>.py`` with a function ``run()`` that yields records::

    def run() -> Iterator[dict[str, Any]]:
        image = torch.rand(1, 3, 448, 448)
        yield compare("image.forward", lambda: ours(image), lambda: theirs(image), repeats=7, size=448)
        yield record("image.memory", peak_mb=peak_memory(prepare_forward, size=448) / 2**20)

``python tools/benchmark.py image`` prints each as a line of JSON. Nothing here judges a figure; tests and
readers do.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ovseg.evaluation.memory import peak_memory as peak_memory_mb

__all__ = [
    "compare",
    "compare_times",
    "cpu_name",
    "fresh_run",
    "in_turn",
    "max_difference",
    "peak_memory",
    "record",
    "time_command",
    "time_ms",
]


def max_difference(ours: Any, reference: Any) -> float:
    """Greatest absolute difference of two tensors or arrays of one shape.

    Raises:
        ValueError: The shapes differ.
    """
    import numpy as np

    a, b = (np.asarray(x.detach().cpu() if hasattr(x, "detach") else x) for x in (ours, reference))
    if a.shape != b.shape:
        raise ValueError(f"results of shapes {a.shape} and {b.shape} cannot be compared")
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0.0))


def compare(
    name: str,
    ours: Callable[[], Any],
    reference: Callable[[], Any],
    *,
    repeats: int = 5,
    difference: Callable[[Any, Any], float] | None = max_difference,
    **parameters: Any,
) -> dict[str, Any]:
    """Times two ways to the same result, in turn (A B A B), after one run of each to warm up.

    Args:
        name: ``benchmark.measurement``.
        ours: One run of this package; its result is compared.
        reference: One run of what it is measured against.
        repeats: Turns that are timed.
        difference: Of the two results; None where they are of two kinds.
        **parameters: What was measured (sizes, counts), copied into the record.

    Returns:
        The record of ``compare_times``, with ``difference`` (null where nothing was compared).
    """
    results = ours(), reference()
    gap = None if difference is None else difference(*results)
    return compare_times(name, *in_turn(ours, reference, repeats=repeats), difference=gap, **parameters)


def in_turn(*sides: Callable[[], Any], repeats: int) -> list[list[float]]:
    """Milliseconds of each side, ``repeats`` times, in turn (A B C A B C). Warming up is the caller's."""
    return [list(times) for times in zip(*([_once(side) for side in sides] for _ in range(repeats)))]


def compare_times(
    name: str, ours: Sequence[float], reference: Sequence[float], **parameters: Any
) -> dict[str, Any]:
    """A record of two sides that took turns.

    Other processes slow both sides of a turn alike, so the ratio holds where the times do not.

    Args:
        name: ``benchmark.measurement``.
        ours: Milliseconds of each turn.
        reference: As ``ours``, of the same turns.
        **parameters: Copied into the record.

    Returns:
        A record with ``ours_ms`` and ``reference_ms`` (medians), ``ratio`` (reference over ours: how many
        times faster we are; the median over the turns) and ``ratio_range`` (least and greatest).
    """
    ratios = [theirs / own for own, theirs in zip(ours, reference)]
    return record(
        name,
        ours_ms=_round(statistics.median(ours)),
        reference_ms=_round(statistics.median(reference)),
        ratio=_round(statistics.median(ratios)),
        ratio_range=[_round(min(ratios)), _round(max(ratios))],
        repeats=len(ratios),
        **parameters,
    )


def record(name: str, **figures: Any) -> dict[str, Any]:
    """Figures with the machine they were taken on: threads, load, versions, processor."""
    import torch

    return {
        "name": name,
        **figures,
        "threads": torch.get_num_threads(),
        "load": _round(os.getloadavg()[0]) if hasattr(os, "getloadavg") else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": cpu_name(),
    }


def time_ms(run: Callable[[], Any], *, repeats: int = 5) -> float:
    """Median time of a run in milliseconds, after one to warm up."""
    run()
    return _round(statistics.median(_once(run) for _ in range(repeats)))


def time_command(argv: Sequence[str], *, repeats: int = 5) -> float:
    """Median wall time in milliseconds of a command in a process of its own, after one run to warm up.

    Raises:
        RuntimeError: It does not end with exit code 0; its last words are quoted.
    """

    def run() -> None:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr[-500:]}")

    return time_ms(run, repeats=repeats)


def peak_memory(prepare: Callable[..., Callable[[], Any]], **arguments: Any) -> int:
    """Bytes that a step adds to the peak memory of a process; see ``fresh_run``."""
    return fresh_run(prepare, **arguments)[1]


def fresh_run(prepare: Callable[..., Callable[[], Any]], **arguments: Any) -> tuple[float, int]:
    """Does a step once in a fresh process.

    Another process only prepares it; the difference of their peaks is what the step adds.

    Args:
        prepare: Function at the top level of a module that makes what the step needs and returns the step.
        **arguments: For ``prepare``; JSON values.

    Returns:
        Milliseconds of the step, and bytes that it adds to the peak memory of a process.

    Raises:
        RuntimeError: A process failed; its last words are quoted.
    """
    milliseconds, peak = _child_run(prepare, arguments, step=True)
    return milliseconds, peak - _child_run(prepare, arguments, step=False)[1]


def _once(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start)


def _round(value: float) -> float:
    return float(f"{value:.4g}")


def _child_run(prepare: Callable[..., Any], arguments: dict[str, Any], *, step: bool) -> tuple[float, int]:
    import torch

    job = [prepare.__module__, prepare.__qualname__, arguments, step, torch.get_num_threads()]
    code = "from ovseg.benchmark.harness import _child; _child()"
    argv = [sys.executable, "-c", code, json.dumps(job)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{prepare.__qualname__} failed in its own process: {done.stderr[-500:]}")
    milliseconds, peak = done.stdout.split()[-2:]
    return float(milliseconds), int(peak)


def _child() -> None:
    module, function, arguments, step, threads = json.loads(sys.argv[1])
    import torch

    torch.set_num_threads(threads)
    run = getattr(importlib.import_module(module), function)(**arguments)
    milliseconds = _once(run) if step else 0.0
    print(_round(milliseconds), round(peak_memory_mb() * 2**20))


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
