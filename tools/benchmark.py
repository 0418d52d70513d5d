"""Runs a benchmark of ``ovseg.benchmark`` and prints one line of JSON per measurement.

python tools/benchmark.py text --threads 2 --json text.jsonl
python tools/benchmark.py training_free --row cliptrase --row lposs
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
from pathlib import Path

import torch

import ovseg.benchmark

_HELPERS = {"harness", "replay"}
NAMES = sorted({module.name for module in pkgutil.iter_modules(ovseg.benchmark.__path__)} - _HELPERS)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the lines to this file too")
    parser.add_argument("--threads", type=int, metavar="N", help="torch's threads (default: torch's choice)")
    parser.add_argument(
        "--row", action="append", metavar="ROW", help="only this, of a benchmark that has rows; repeatable"
    )
    arguments = parser.parse_args(argv)
    module = importlib.import_module(f"ovseg.benchmark.{arguments.name}")
    known = getattr(module, "ROWS", ())
    if unknown := set(arguments.row or ()) - set(known):
        rows = f"its rows: {', '.join(known)}" if known else "it has no rows to choose from"
        parser.error(f"{arguments.name} has no row {sorted(unknown)[0]!r}; {rows}")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    lines = []
    for measurement in module.run(arguments.row) if arguments.row else module.run():
        lines.append(json.dumps(measurement))
        print(lines[-1], flush=True)
    if arguments.json:
        arguments.json.write_text("".join(line + "\n" for line in lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
