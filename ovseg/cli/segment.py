"""``ovseg segment``: images in, label maps and overlays out."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ovseg.cli.batch import Batch, add_batch_options, add_inputs, find_inputs
from ovseg.cli.console import share_table
from ovseg.cli.options import (
    add_class_options,
    add_detail_option,
    add_model_options,
    open_predictor,
    read_vocabulary,
    set_classes,
)
from ovseg.cli.outputs import add_output_options

if TYPE_CHECKING:
    from ovseg.inference.results import SegResult

__all__ = ["add_parser", "run"]

_EXAMPLES = """examples:
  ovseg segment photo.jpg --classes road car "traffic light" "person: man | woman"
  ovseg segment photos/ 'more/**/*.png' --vocab ade150 --model maskclip_vit_b16.openai
  ovseg segment photo.jpg --classes cat --background none --format png,coco --out labels
  find photos -newer last_week | ovseg segment - --vocab words.txt --resume
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Registers the sub-command."""
    parser = subparsers.add_parser(
        "segment",
        help="segment images into classes named in plain words",
        description="Segment images into classes named in plain words. Prints the path of each file.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_inputs(parser)
    add_class_options(parser)
    add_model_options(parser)
    add_detail_option(parser)
    add_output_options(parser, "labels", ["overlay", "png"])
    add_batch_options(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Segments every input.

    Returns:
        0, or 1 if some inputs failed; each is named on stderr.

    Raises:
        ValueError: Wrong use: inputs, classes, formats or the model do not exist.
    """
    # Everything that can be wrong with the arguments shows before the seconds that loading a model takes.
    vocabulary = read_vocabulary(args)
    batch = Batch(args, find_inputs(args.inputs), vocabulary)
    if not batch.sources:
        return batch.report()
    predictor = open_predictor(args)
    set_classes(predictor, vocabulary, args)
    tally = _Tally()
    options = {"background": args.background, "detail": args.detail}
    for result in batch.run("segmenting", lambda files: predictor.segment(files, **options)):
        tally.add(result)  # type: ignore[arg-type]
    if tally.done:
        share_table(vocabulary, *tally.shares())
    return batch.report()


@dataclass
class _Tally:
    """Sums over the images of the area fractions."""

    done: int = 0
    areas: Counter[str] = field(default_factory=Counter)
    unlabelled: float = 0.0

    def add(self, result: SegResult) -> None:
        self.done += 1
        self.areas.update(result.area())
        self.unlabelled += result.unlabelled

    def shares(self) -> tuple[dict[str, float], float]:
        """Mean area by class, and the mean area without a class."""
        return {name: area / self.done for name, area in self.areas.items()}, self.unlabelled / self.done
