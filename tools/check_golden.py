"""Checks ovseg against golden vectors of the authors' code: one line per quantity.

    python tools/check_golden.py DIR [--method M]

DIR holds a folder of .npz cases for each method, or is a .json file of vectors for single parts. Exits with 1
on any miss, on a case that cannot be read and on a method that is not known; with 2 where there is nothing to
check.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "directory", type=Path, metavar="DIR", help="folders of .npz cases, or a .json of parts"
    )
    parser.add_argument("--method", help="only this folder")
    args = parser.parse_args()

    from ovseg.evaluation.golden.check import check_directory

    passed = failed = 0
    try:
        for check in check_directory(args.directory, args.method):
            print(check.line(), flush=True)
            passed, failed = passed + check.ok, failed + (not check.ok)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
