"""The part of ``ovseg eval`` that is about boxes."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg.cli.console import progress, say

if TYPE_CHECKING:
    from ovseg.evaluation.box_protocols import BoxProtocol
    from ovseg.evaluation.box_sets import BoxSet
    from ovseg.evaluation.detections import Detect
    from ovseg.inference.predictor import Predictor

__all__ = ["add_box_options", "run_boxes"]


def add_box_options(parser: argparse.ArgumentParser) -> None:
    """Registers what only detection needs."""
    group = parser.add_argument_group("boxes (--data emoji_boxes, ov_coco, ov_lvis, or a COCO .json file)")
    group.add_argument(
        "--proposals",
        metavar="SOURCE",
        help="where objects may be: own (the localiser of a fine-tuned detector, its default), truth (the "
        "true boxes, the default of all others), segments, grid, a .json file in "
        "COCO's layout of results, or the weights of a localiser (.pth of detectron2)",
    )
    group.add_argument(
        "--objectness",
        choices=("sigmoid", "raw_logit"),
        help="how the proposals' own score enters (default: sigmoid, or as the model's paper has it); "
        "RegionCLIP's zero-shot figures need raw_logit",
    )


def run_boxes(args: argparse.Namespace, predictor: Predictor, data: BoxSet, reports: bool) -> int:
    """Evaluates a predictor on boxes and writes the report.

    Args:
        args: Of the command.
        predictor: The model.
        data: From ``open_box_set``.
        reports: Whether this is the process that reports.

    Returns:
        0, or 1 if some images were left out; each is named on stderr.

    Raises:
        ValueError: The proposals are none.
    """
    from ovseg.evaluation.box_protocols import box_protocol
    from ovseg.evaluation.detections import evaluate_detections
    from ovseg.evaluation.report import write_report
    from ovseg.evaluation.report_boxes import boxes_to_markdown, report_boxes

    source = args.proposals or ("truth" if getattr(predictor.model, "localiser", None) is None else "own")
    protocol = box_protocol(predictor.name, data, args.objectness)
    detect, settings = _detector(predictor, data, source, protocol)
    folder = args.out or Path("ovseg_eval") / predictor.name / f"{data.name}.{Path(source).stem}"
    start, count = time.perf_counter(), min(len(data), args.limit or len(data))
    with progress("evaluating", count if reports else 0) as advance:
        found = evaluate_detections(
            detect, data, settings=settings, folder=folder, limit=args.limit, progress=advance
        )
    if found is None:
        return 0
    paper = {} if args.vocab else protocol.published(Path(source).stem)
    summary = report_boxes(found, data, paper=paper, seconds=time.perf_counter() - start)
    for path in write_report(folder, summary, boxes_to_markdown):
        print(path)
    for record in found.failures:
        say(f"left out: {record.name}: {record.error}")
    say(_line(summary))
    return 1 if found.failures else 0


def _detector(
    predictor: Predictor, data: BoxSet, source: str, protocol: BoxProtocol
) -> tuple[Detect, dict[str, Any]]:
    """The predictor on a source of boxes, and all that its detections depend on."""
    from ovseg.evaluation import region_detector
    from ovseg.vocab.cache import weights_hash

    settings = {
        "model": predictor.name,
        "weights": weights_hash(predictor.model)[:16],
        "protocol": repr(predictor.protocol),
        "proposals": source,
    }
    if source == "segments":
        return region_detector.segments_detector(predictor, data.vocabulary), settings
    settings["selection"] = repr(protocol.selection)
    if source == "own":
        return region_detector.own_detector(predictor, data.vocabulary, protocol.selection), settings
    device = next(predictor.model.parameters()).device
    boxes = region_detector.proposals_by_name(source, device)
    rules = (protocol.objectness, protocol.selection)
    detect = region_detector.RegionDetector(predictor, data.vocabulary, boxes, *rules)
    return detect, {**settings, "objectness": protocol.objectness}


def _line(summary: dict[str, Any]) -> str:
    paper = summary["paper"] or {}
    parts = [
        f"{name} {figures['ap50']}" + (f" (published {paper[name]})" if name in paper else "")
        for name, figures in summary["groups"].items()
    ]
    line = f"AP50 {', '.join(parts)} ({summary['images']} images)"
    if summary["top_k"] is None:
        return line
    top = summary["top_k"]["all"]
    return f"{line}; true boxes named right: {top['top1_micro']} ({top['top1_macro']} as the mean of classes)"
