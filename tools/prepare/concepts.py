"""Writes the concepts of RegionCLIP's pretraining: the noun phrases of captions, one a line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from ovseg._files import atomic_path
from ovseg.datasets.concepts import parse_concepts


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "captions",
        help="a .json file in COCO's layout of captions (or a list of image and caption), or 'emoji': the "
        "captions of EmojiScenes that pretraining sees",
    )
    parser.add_argument("out", type=Path, metavar="FILE", help="a .txt file")
    parser.add_argument(
        "--least", type=int, default=1, metavar="N", help="phrases that occur N times or more"
    )
    args = parser.parse_args(argv)
    try:
        captions = _emoji() if args.captions == "emoji" else _read(Path(args.captions))
        concepts = parse_concepts(captions, args.least)
    except (FileNotFoundError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    with atomic_path(args.out) as path:
        path.write_text("\n".join(concepts) + "\n", encoding="utf-8")
    print(f"{len(concepts)} concepts in {args.out}")
    return 0


def _read(path: Path) -> list[str]:
    document = json.loads(path.read_text(encoding="utf-8"))
    rows = document["annotations"] if isinstance(document, dict) else document
    if not all(isinstance(row, dict) and isinstance(row.get("caption"), str) for row in rows):
        raise ValueError(f"{path} has not COCO's layout of captions: entries with 'caption' are missing")
    return [row["caption"] for row in rows]


def _emoji(scenes: int = 1200) -> Iterator[str]:
    from ovseg.datasets.emoji import EmojiScenes
    from ovseg.models import emoji_boxes

    drawn = EmojiScenes("train", ("base", "novel"), length=scenes)
    return (emoji_boxes.scene_caption(drawn, i, scene) for i, scene in enumerate(drawn))


if __name__ == "__main__":
    sys.exit(main())
