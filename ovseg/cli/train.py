"""``ovseg train``: trains what a config file describes."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from ovseg.cli.console import say
from ovseg.cli.openmmlab import import_openmmlab

__all__ = ["add_config_options", "add_parser", "options_of", "run"]

_EXAMPLES = """examples:
  ovseg train configs/probes/linear_emoji.py
  ovseg train configs/probes/semantic_fpn_camvid.py --data-root /data/camvid --resume
  ovseg train my_config.py --cfg-options train_cfg.max_iters=2000 optim_wrapper.optimizer.lr=1e-3
A config is a Python program that is executed: only name files you trust.
"""


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Adds CONFIG, ``--data-root``, ``--work-dir`` and ``--cfg-options``."""
    parser.add_argument("config", metavar="CONFIG", help="a file below configs/, or your own")
    parser.add_argument(
        "--data-root", type=Path, metavar="DIR", help="where the data sets lie (default: data)"
    )
    parser.add_argument("--work-dir", type=Path, metavar="DIR", help="(default: work_dirs/<name of CONFIG>)")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="changes to the config, keys with dots",
    )


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Registers the sub-command."""
    parser = subparsers.add_parser(
        "train",
        help="train what a config describes",
        description="Train what a config describes, after a look at the data. Prints the work directory.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_options(parser)
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        metavar="CHECKPOINT",
        help="go on from CHECKPOINT, or from the newest one in the work directory",
    )
    parser.add_argument("--amp", action="store_true", help="mixed precision")
    parser.add_argument("--launcher", choices=("none", "pytorch"), default="none", help="under torchrun")
    parser.add_argument("--no-check", action="store_true", help="do not look at the data first")
    parser.set_defaults(run=run)
    return parser


def options_of(args: argparse.Namespace) -> dict[str, Any]:
    """``--cfg-options`` as a mapping.

    Raises:
        ValueError: One is not of the form KEY=VALUE.
    """
    from mmengine.config import DictAction

    if wrong := [option for option in args.cfg_options if "=" not in option]:
        raise ValueError(f"--cfg-options takes KEY=VALUE, not {wrong[0]!r}")
    parser = argparse.ArgumentParser()  # a second one: importing mmengine for --help takes too long
    parser.add_argument("--set", nargs="*", action=DictAction)
    return parser.parse_args(["--set", *args.cfg_options]).set


def run(args: argparse.Namespace) -> int:
    """Looks at the data, then trains.

    Returns:
        0.

    Raises:
        ValueError: Wrong use, or the data do not fit the model.
        FileNotFoundError: The config, the data or the checkpoint is not there.
    """
    import_openmmlab(components=True)
    from ovseg.training.run import prepare_config, train

    cfg = prepare_config(
        args.config, args.work_dir, options_of(args), data_root=args.data_root, launcher=args.launcher
    )
    if not (args.no_check or args.resume):
        from ovseg.training.check_data import check_data, is_segmentation

        if is_segmentation(cfg):
            for line in check_data(cfg, Path(cfg.work_dir) / "check_data", limit=50).lines():
                say(line)
    with redirect_stdout(sys.stderr):  # where mmengine logs to
        train(cfg, args.work_dir, args.resume, amp=args.amp, launcher=args.launcher)
    print(cfg.work_dir)
    return 0
