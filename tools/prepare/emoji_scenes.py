"""Writes scenes of EmojiScenes as files: images, masks, class names, and COCO annotations of the objects."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ovseg.datasets.emoji import EmojiScenes
from ovseg.datasets.emoji_scenes import write_scenes


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, metavar="FOLDER")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test")
    parser.add_argument("--groups", nargs="+", choices=("base", "novel", "unknown"), default=["base"])
    parser.add_argument(
        "--classes",
        nargs="+",
        choices=("base", "novel", "unknown"),
        help="words that are classes, whether they are drawn or not (default: those of --groups)",
    )
    parser.add_argument("--length", type=int, default=100, help="number of scenes (default 100)")
    parser.add_argument("--size", type=int, default=224, help="pixels of a side (default 224)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        scenes = EmojiScenes(args.split, args.groups, size=args.size, length=args.length, seed=args.seed)
    except FileNotFoundError as error:
        parser.exit(1, f"{error}\n")
    write_scenes(args.out, scenes, args.classes or args.groups)
    return 0


if __name__ == "__main__":
    sys.exit(main())
