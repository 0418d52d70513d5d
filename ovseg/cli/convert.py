"""``ovseg convert``: published checkpoints and results of trainings, as one release file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg.cli.console import say

if TYPE_CHECKING:
    from ovseg.inference.predictor import Predictor

__all__ = ["add_parser", "run"]

_EXAMPLES = """examples:
  ovseg convert model_base.pth cat_seg.safetensors                    (CAT-Seg as its authors publish it)
  ovseg convert ViT-B-16.pt sclip.safetensors --method sclip          (a CLIP, to be read by a method)
  ovseg convert work_dirs/x/best.pth mine.safetensors --config x.py   (what `ovseg train x.py` left behind)
The result goes to `ovseg segment --model mine.safetensors` and `ovseg eval mine.safetensors`.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Registers the sub-command."""
    parser = subparsers.add_parser(
        "convert",
        help="turn a checkpoint into a release file",
        description="Turn a published or trained checkpoint into one file that ovseg loads anywhere, without "
        "running anything in it. Prints its path.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    parser.add_argument("out", type=Path, metavar="OUT.safetensors")
    parser.add_argument("--method", metavar="NAME", help="for a bare CLIP: how it is read")
    parser.add_argument(
        "--activation",
        choices=("quick_gelu", "gelu"),
        help="of a bare CLIP that does not say: quick_gelu (OpenAI, MetaCLIP, DFN) or gelu (the others)",
    )
    parser.add_argument("--config", type=Path, metavar="CONFIG", help="of the training; it is executed")
    parser.add_argument("--vocab", metavar="NAME|FILE", help="words that the file comes with")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Writes the release.

    Returns:
        0.

    Raises:
        ValueError: Wrong use, or the checkpoint is damaged or of no known layout.
        FileNotFoundError: A file is not there.
        WriteError: The result cannot be written.
    """
    if args.out.suffix != ".safetensors":
        raise ValueError(f"release files end in .safetensors; {args.out} does not")
    if args.config and (args.method or args.activation):
        raise ValueError("--config says what the model is: leave out --method and --activation")
    predictor = _trained(args) if args.config else _published(args)
    if args.vocab:
        predictor.set_vocabulary(args.vocab)
    print(predictor.save(args.out))
    words = f"{len(predictor.vocabulary)} classes" if predictor.vocabulary else "no classes"
    say(f"{predictor.name}, {words}")
    return 0


def _trained(args: argparse.Namespace) -> Predictor:
    from ovseg.cli.openmmlab import import_openmmlab

    import_openmmlab(components=True)
    from ovseg.training.release import trained_predictor

    return trained_predictor(args.config, args.checkpoint)


def _published(args: argparse.Namespace) -> Predictor:
    import ovseg
    from ovseg.methods.trained import find_method

    if not args.checkpoint.is_file():
        raise FileNotFoundError(f"no checkpoint {args.checkpoint}")
    method = args.method or find_method(args.checkpoint)
    if method is None:
        raise ValueError(
            f"{args.checkpoint} is of no method with learned parts: for a bare CLIP name one that reads it, "
            "as in --method maskclip; for the result of a training name its --config"
        )
    fields = {"activation": args.activation} if args.activation else {}
    return ovseg.build(method, args.checkpoint, device="cpu", **fields)
