"""``ovseg check-data``: what is in the labels of a training, before it starts."""

from __future__ import annotations

import argparse
from pathlib import Path

from ovseg.cli.openmmlab import import_openmmlab
from ovseg.cli.train import add_config_options, options_of

__all__ = ["add_parser", "run"]


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Registers the sub-command."""
    parser = subparsers.add_parser(
        "check-data",
        help="look at the data of a training",
        description="Read the labels of a config's training data: classes seen, names that differ, share of "
        "pixels left out, and four pictures. A class list that does not fit is an error.",
    )
    add_config_options(parser)
    parser.add_argument("--limit", type=int, default=200, metavar="N", help="images to read; 0 reads all")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Prints what was found.

    Returns:
        0.

    Raises:
        ValueError: The data do not fit the model, or the config trains on no label maps.
        FileNotFoundError: The config or the data are not there.
    """
    import_openmmlab(components=True)
    from ovseg.training.check_data import check_data, is_segmentation
    from ovseg.training.run import prepare_config

    cfg = prepare_config(args.config, args.work_dir, options_of(args), data_root=args.data_root)
    if not is_segmentation(cfg):
        raise ValueError(f"{args.config} does not train on label maps; there is nothing to check")
    for line in check_data(cfg, Path(cfg.work_dir) / "check_data", args.limit or None).lines():
        print(line)
    return 0
