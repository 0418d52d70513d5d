"""Runs a benchmark of ``ovseg.benchmark`` and prints one line of JSON per measurement.

python tools/benchmark.py text --threads 2 --json text.jsonl
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
from pathlib import Path

import torch

import ovseg.benchmark

NAMES = sorted(m.name for m in pkgutil.iter_modules(ovseg.benchmark.__path__) if m.name != "harness")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the lines to this file too")
    parser.add_argument("--threads", type=int, metavar="N", help="torch's threads (default: torch's choice)")
    arguments = parser.parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    lines = []
    for measurement in importlib.import_module(f"ovseg.benchmark.{arguments.name}").run():
        lines.append(json.dumps(measurement))
        print(lines[-1], flush=True)
    if arguments.json:
        arguments.json.write_text("".join(line + "\n" for line in lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
