"""Trains what a config describes, e.g. ``python tools/train.py configs/emoji/clip_vit_tiny.py --resume``."""

from __future__ import annotations

import argparse
import sys

from mmengine.config import DictAction

from ovseg.training.run import train


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("--work-dir", help="default: work_dirs/<name of the config>")
    parser.add_argument("--data-root", help="where the data sets lie (default: as in the config)")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        metavar="CHECKPOINT",
        help="go on from CHECKPOINT, or from the newest one in the work dir",
    )
    parser.add_argument("--amp", action="store_true", help="mixed precision")
    parser.add_argument("--launcher", choices=("none", "pytorch"), default="none")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, default={}, metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    train(
        args.config, args.work_dir, args.resume, args.cfg_options, data_root=args.data_root, amp=args.amp,
        launcher=args.launcher,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
