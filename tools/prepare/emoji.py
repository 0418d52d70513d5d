"""Installs the drawings of EmojiScenes from npm and renders them into one file.

Needs ``npm`` and ``pip install ovseg[emoji]``. Writes ``drawings.npz`` and ``CARD.md`` (sources, versions,
licences, attribution) into a folder, by default ``$OVSEG_CACHE/emoji`` or ``~/.cache/ovseg/emoji``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ovseg.datasets.emoji import default_path
from ovseg.datasets.emoji.demo import write_demo
from ovseg.datasets.emoji.preparation import prepare


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=default_path().parent, metavar="FOLDER")
    parser.add_argument("--size", type=int, default=128, help="pixels of a drawing (default 128)")
    parser.add_argument("--demo", type=Path, metavar="FOLDER", help="write the demo scenes there instead")
    args = parser.parse_args(argv)
    if args.size % 4:
        parser.error("--size must be a multiple of 4")
    try:
        if args.demo:
            write_demo(args.demo, args.out / "demo")
        else:
            counts = prepare(args.out, args.size)
            print(f"{sum(counts.values())} drawings: {args.out / 'drawings.npz'}")
    except RuntimeError as error:
        parser.exit(1, f"{error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
