"""``ovseg detect``: images in, boxes out."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ovseg.cli.batch import Batch, add_batch_options, add_inputs, find_inputs
from ovseg.cli.console import say
from ovseg.cli.options import (
    add_class_options,
    add_model_options,
    open_predictor,
    read_vocabulary,
    set_classes,
)
from ovseg.cli.outputs import add_output_options

if TYPE_CHECKING:
    from ovseg.inference.predictor import Predictor
    from ovseg.inference.results import DetResult, Failure
    from ovseg.towers.sam import SamTower

__all__ = ["add_parser", "run"]

_EXAMPLES = """examples:
  ovseg detect photo.jpg --classes car bicycle "person: man | woman"
  ovseg detect photos/ --vocab coco_ov80 --format coco,yolo --model maskclip_vit_b16.openai
  ovseg detect photo.jpg --classes dog --proposals grid --masks sam
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
        metavar="SOURCE",
        help="where objects may be: own (the localiser of a fine-tuned detector, its default), segments "
        "(connected parts of the segmentation, with masks; the default of all others), "
        "grid (boxes all over the image), a file of one image's boxes (.npz with boxes and scores), or the "
        "weights of a localiser (.pth of detectron2, such as RegionCLIP's rpn_lvis_866.pth)",
    )
    parser.add_argument(
        "--threshold", type=_fraction, default=0.3, metavar="P", help="least score, 0 to 1 (default: 0.3)"
    )
    parser.add_argument(
        "--masks",
        type=_sam_name,
        metavar="SAM",
        help="draw a mask in each box with SAM: sam (sam_vit_b), sam_vit_l, sam_vit_h",
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
    set_classes(predictor, vocabulary, args)
    sam = None if args.masks is None else _open_sam(args.masks, predictor)
    counts = Counter[str]()
    options = {"threshold": args.threshold, "background": args.background}
    options["proposals"] = _proposals(args.proposals, predictor)
    for result in batch.run("searching", lambda files: _masked(predictor.detect(files, **options), sam)):
        counts.update(result.names)  # type: ignore[union-attr]
    for name, count in counts.most_common():
        say(f"{count:6} {name}")
    return batch.report(f", {counts.total()} objects")


def _open_sam(name: str, predictor: Predictor) -> SamTower:
    from ovseg.towers.auxiliary import auxiliary_tower

    say(f"loading {name}")
    return auxiliary_tower(name, next(predictor.model.parameters()).device)  # type: ignore[return-value]


def _proposals(source: str | None, predictor: Predictor) -> Any:
    """The source as ``predictor.detect`` takes it."""
    if source is None or not source.endswith(".pth"):
        return source
    from ovseg.models.detectors import load_localiser

    say(f"loading {source}")
    return load_localiser(source, next(predictor.model.parameters()).device)


def _masked(results: Iterator[DetResult | Failure], sam: SamTower | None) -> Iterator[DetResult | Failure]:
    """Each result with SAM's masks; one that SAM cannot do fails, and the others go on."""
    if sam is None:
        yield from results
        return
    from ovseg.inference.results import Failure
    from ovseg.inference.sam_boxes import add_masks

    for result in results:
        if isinstance(result, Failure):
            yield result
            continue
        try:
            masked = add_masks(result, sam)
        except Exception as error:
            yield Failure(result.source or "image", error)
        else:
            yield masked


def _sam_name(text: str) -> str:
    from ovseg.towers.auxiliary import list_auxiliary_towers

    names = [name for name in list_auxiliary_towers() if name.startswith("sam_")]
    name = "sam_vit_b" if text == "sam" else text
    if name not in names:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of sam, {', '.join(names)}")
    return name


def _check_proposals(source: str | None, images: int) -> None:
    if source in (None, "own", "segments", "grid"):
        return
    if not os.path.isfile(source):
        raise ValueError(
            f"--proposals {source}: no such file; give segments, grid, own, an .npz or a .pth file"
        )
    if images > 1 and not source.endswith(".pth"):
        raise ValueError(f"--proposals {source} are the boxes of one image, but there are {images} inputs")


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 1")
    return value
