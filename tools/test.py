"""Tests a checkpoint: ``python tools/test.py configs/probes/linear_camvid.py work_dirs/.../best.pth``."""

from __future__ import annotations

import argparse
import sys

from mmengine.config import DictAction

from ovseg.training.run import test


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("checkpoint")
    parser.add_argument("--work-dir", help="default: work_dirs/<name of the config>")
    parser.add_argument("--data-root", help="where the data sets lie (default: as in the config)")
    parser.add_argument("--launcher", choices=("none", "pytorch"), default="none")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, default={}, metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    found = test(
        args.config, args.checkpoint, args.work_dir, args.cfg_options, data_root=args.data_root,
        launcher=args.launcher,
    )  # fmt: skip
    for name, value in found.items():
        print(f"{name} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
