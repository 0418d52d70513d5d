"""``ovseg detect``: images in, boxes out."""

from __future__ import annotations

import argparse
import os
from collections import Counter

from ovseg.cli.batch import Batch, add_batch_options, add_inputs, find_inputs
from ovseg.cli.console import say
from ovseg.cli.options import add_class_options, add_model_options, open_predictor, read_vocabulary
from ovseg.cli.outputs import add_output_options

__all__ = ["add_parser", "run"]

_EXAMPLES = """examples:
  ovseg detect photo.jpg --classes car bicycle "person: man | woman"
  ovseg detect photos/ --vocab coco_ov80 --format coco,yolo --model maskclip_vit_b16.openai
  ovseg detect photo.jpg --classes cat --proposals boxes.npz --method maskclip --tower rn50.openai
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Registers the sub-command."""
    parser = subparsers.add_parser(
        "detect",
        help="find objects of classes named in plain words",
        description="Find objects of classes named in plain words. Prints the path of each file.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_inputs(parser)
    add_class_options(parser)
    add_model_options(parser)
    parser.add_argument(
        "--proposals",
        default="segments",
        metavar="SOURCE",
        help="where objects may be: segments (connected parts of the segmentation, with masks; default), "
        "grid (boxes all over the image), or a file of one image's boxes (.npz with boxes and scores)",
    )
    parser.add_argument(
        "--threshold", type=_fraction, default=0.3, metavar="P", help="least score, 0 to 1 (default: 0.3)"
    )
    add_output_options(parser, "detections", ["overlay", "coco"])
    add_batch_options(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Searches every input.

    Returns:
        0, or 1 if some inputs failed; each is named on stderr.

    Raises:
        ValueError: Wrong use: inputs, classes, formats or the model do not exist.
    """
    vocabulary = read_vocabulary(args)
    sources = find_inputs(args.inputs)
    _check_proposals(args.proposals, len(sources))
    batch = Batch(args, sources, vocabulary)
    if not batch.sources:
        return batch.report()
    predictor = open_predictor(args)
    predictor.set_vocabulary(vocabulary, templates=args.templates)
    counts = Counter[str]()
    options = {"proposals": args.proposals, "threshold": args.threshold, "background": args.background}
    for result in batch.run("searching", lambda files: predictor.detect(files, **options)):
        counts.update(result.names)  # type: ignore[union-attr]
    for name, count in counts.most_common():
        say(f"{count:6} {name}")
    return batch.report(f", {counts.total()} objects")


def _check_proposals(source: str, images: int) -> None:
    if source in ("segments", "grid"):
        return
    if not os.path.isfile(source):
        raise ValueError(f"--proposals {source}: no such file; give segments, grid or an .npz file")
    if images > 1:
        raise ValueError(f"--proposals {source} are the boxes of one image, but there are {images} inputs")


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 1")
    return value
