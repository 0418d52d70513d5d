"""``ovseg compare`` and ``ovseg explain``: several methods on one image, side by side."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg.cli.console import say
from ovseg.cli.options import (
    add_activation_option,
    add_class_options,
    add_detail_option,
    named_tower,
    read_vocabulary,
    set_classes,
)

if TYPE_CHECKING:
    from ovseg.inference.predictor import Predictor

__all__ = ["add_explain_parser", "add_parser", "run", "run_explain"]

_TOWER = "vit_tiny.emoji"
_METHODS = ["clip", "maskclip", "sclip", "clearclip", "naclip"]


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Registers ``ovseg compare``."""
    parser = subparsers.add_parser(
        "compare",
        help="segment an image with several methods, on one sheet",
        description="Segment an image with several methods and lay the overlays out on one sheet with times.",
    )
    parser.add_argument("image", metavar="IMAGE")
    _add_methods(parser)
    add_class_options(parser)
    add_detail_option(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="(default: ovseg_out/IMAGE.compare.png)")
    parser.set_defaults(run=run)
    return parser


def add_explain_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Registers ``ovseg explain``."""
    parser = subparsers.add_parser(
        "explain",
        help="show which patches a place attends to, for several methods",
        description="Show which patches of an image a place attends to in the last block, method by method. "
        "Where a method's mixing has no such weights, the similarity of its features is shown.",
    )
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("--at", type=_place, required=True, metavar="X,Y", help="the place, in pixels")
    _add_methods(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="(default: ovseg_out/IMAGE.explain.png)")
    parser.set_defaults(run=run_explain)
    return parser


def run(args: argparse.Namespace) -> int:
    """Compares. Returns 0.

    Raises:
        ValueError: A method or tower is unknown, or the image cannot be read.
        WeightsUnavailableError: Weights are not here and cannot be fetched.
    """
    from ovseg.inference.images import read_image
    from ovseg.inference.render import with_key
    from ovseg.inference.sheet import save_picture, sheet

    vocabulary = read_vocabulary(args)
    image = read_image(args.image)
    panels = [(Path(args.image).name, image)]
    for method, predictor in _predictors(args):
        set_classes(predictor, vocabulary, args)
        result = predictor.segment(image, background=args.background, detail=args.detail)
        seconds = result.seconds or 0.0
        say(f"{method}: {seconds:.2f} s, {', '.join(result.classes()[:5]) or 'nothing found'}")
        panels.append((f"{method}  {seconds:.2f} s", result.overlay(legend=False)))
    out = args.out or Path("ovseg_out") / f"{Path(args.image).name}.compare.png"
    save_picture(with_key(sheet(panels), vocabulary), out)
    print(out, flush=True)
    return 0


def run_explain(args: argparse.Namespace) -> int:
    """Explains. Returns 0.

    Raises:
        ValueError: A method or tower is unknown, the image cannot be read, or the place is not in it.
        WeightsUnavailableError: Weights are not here and cannot be fetched.
    """
    from ovseg.inference.explain import draw_explanation, explain
    from ovseg.inference.images import read_image
    from ovseg.inference.sheet import save_picture, sheet

    image = read_image(args.image)
    panels = []
    for method, predictor in _predictors(args):
        found = explain(predictor, image, *args.at)
        panels.append((f"{method}  ({found.kind})", draw_explanation(image, found)))
    out = args.out or Path("ovseg_out") / f"{Path(args.image).name}.explain.png"
    save_picture(sheet(panels), out)
    print(out, flush=True)
    return 0


def _add_methods(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--methods", nargs="+", default=_METHODS, metavar="M", help=f"(default: {' '.join(_METHODS)})"
    )
    parser.add_argument(
        "--tower", default=_TOWER, metavar="NAME|FILE", help=f"(default: {_TOWER}, which knows drawings)"
    )
    add_activation_option(parser)
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")


def _predictors(args: argparse.Namespace) -> Iterator[tuple[str, Predictor]]:
    """Each method on the tower, one after the other, so that one is in memory at a time."""
    import ovseg
    from ovseg.methods.registry import get_method

    for method in args.methods:
        get_method(method)  # a wrong name shows before the first is built
    for method in args.methods:
        yield method, ovseg.build(method, named_tower(args), device=args.device)


def _place(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+),(\d+)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no place; write x,y in pixels, such as 120,80")
    return int(found[1]), int(found[2])
