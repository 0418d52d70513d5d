"""Makes the teachers' targets of a CLIP-DINOiser training beforehand.

python tools/make_targets.py configs/clip_dinoiser/vit_b16_voc.py --cfg-options model.targets=FOLDER
"""

from __future__ import annotations

import argparse
import sys

from mmengine.config import DictAction

from ovseg.cli.console import progress
from ovseg.training.run import prepare_config
from ovseg.training.targets import make_targets


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("--steps", type=int, help="batches (default: all of the training)")
    parser.add_argument("--data-root", help="where the data sets lie (default: as in the config)")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, default={}, metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    cfg = prepare_config(args.config, None, args.cfg_options, data_root=args.data_root)
    steps = args.steps or int(cfg.train_cfg.max_iters)
    with progress("asking the teachers", steps) as advance:
        make_targets(cfg, steps, advance)
    return 0


if __name__ == "__main__":
    sys.exit(main())
