"""Writes the annotations of OV-COCO (48 base, 17 novel classes) from those of COCO 2017.

    python tools/prepare/ov_coco.py DATA_ROOT/coco

Reads ``annotations/instances_{train,val}2017.json`` there and writes ``instances_train2017_base.json`` (base
classes) and ``instances_val2017_all.json`` (all 65) beside them. Images without a box of these classes are
left out, as in the files that published numbers were measured on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ovseg.datasets.open_vocabulary import open_vocabulary_split, write_restricted


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, metavar="DIR", help="folder of COCO, with annotations/")
    folder = parser.parse_args(argv).root / "annotations"
    split = open_vocabulary_split("coco_ov65")
    for source, target, names in (
        ("instances_train2017", "instances_train2017_base", split.base),
        ("instances_val2017", "instances_val2017_all", split.classes),
    ):
        path = folder / f"{source}.json"
        if not path.is_file():
            print(f"{path} does not exist; download COCO 2017's annotations", file=sys.stderr)
            return 2
        print(write_restricted(path, folder / f"{target}.json", names))
    return 0


if __name__ == "__main__":
    sys.exit(main())
