"""Writes the training annotations of OV-LVIS (866 frequent and common classes) from those of LVIS v1.

    python tools/prepare/ov_lvis.py DATA_ROOT/coco

Reads ``annotations/lvis_v1_train.json`` there and writes ``lvis_v1_train_base.json`` beside it. Images
without a box of these classes are left out. Evaluation takes ``lvis_v1_val.json`` as it is.
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
    source, base = folder / "lvis_v1_train.json", open_vocabulary_split("lvis_v1.regionclip").base
    if not source.is_file():
        print(f"{source} does not exist; download LVIS v1's annotations", file=sys.stderr)
        return 2
    print(write_restricted(source, folder / "lvis_v1_train_base.json", base))
    return 0


if __name__ == "__main__":
    sys.exit(main())
