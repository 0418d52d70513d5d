"""``ovseg eval``: a model on a benchmark, and a report."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg.cli.console import progress, say
from ovseg.cli.eval_boxes import add_box_options, run_boxes
from ovseg.cli.openmmlab import import_openmmlab
from ovseg.cli.options import EMBEDDED_MODEL

if TYPE_CHECKING:
    from ovseg.evaluation.box_sets import BoxSet
    from ovseg.evaluation.sets import EvaluationSet
    from ovseg.inference.predictor import Predictor

__all__ = ["add_parser", "run"]

_EXAMPLES = """examples:
  ovseg eval maskclip_vit_tiny.emoji --data emoji
  ovseg eval sclip_vit_b16.openai --data ade150 --data-root /data
  ovseg eval maskclip_vit_b16.openai --data voc21 --protocol sclip   (MaskCLIP under SCLIP's settings)
  ovseg eval clip_vit_b16.openai --data my_street_scenes/            (images/, masks/, classes.txt)
  ovseg eval mine.safetensors --data ade150                          (a release file)
  ovseg eval configs/probes/linear_camvid.py --checkpoint work_dirs/linear_camvid/best.pth
  ovseg eval maskclip_vit_tiny.emoji --data emoji_boxes --proposals segments        (AP50)
  ovseg eval region_clip_rn50.openai --data ov_coco --data-root /data/coco          (true boxes: top-1, AP50)
  ovseg eval --suite emoji
An evaluation that was stopped goes on when the same command is given again.
"""

_DATA_ROOT = Path("data")


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Registers the sub-command."""
    parser = subparsers.add_parser(
        "eval",
        help="evaluate a model on a benchmark",
        description="Evaluate a model. Prints the paths of report.json and report.md.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", nargs="?", metavar="NAME|FILE", help="a row of `ovseg models`, a release file, or a config"
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="with a config, which is executed: tests it on its data",
    )
    parser.add_argument(
        "--suite",
        choices=("emoji", "emoji_small"),
        help="all models with an embedded tower, in one table; emoji_small: on a few shipped scenes",
    )
    parser.add_argument(
        "--against", type=Path, metavar="FILE", help="with --suite: an earlier suite.json; 1 if a figure fell"
    )
    parser.add_argument(
        "--data",
        default="emoji",
        metavar="NAME|DIR",
        help="emoji, camvid, voc21, ade150, ... (default: emoji); with boxes: emoji_boxes, ov_coco, ov_lvis",
    )
    parser.add_argument(
        "--data-root", type=Path, default=_DATA_ROOT, metavar="DIR", help="where it lies (default: data)"
    )
    parser.add_argument("--split", help="(default: the one that figures are published for)")
    parser.add_argument(
        "--protocol",
        metavar="P",
        help="one of the method's protocols, or a method whose protocol for this data set is used "
        "(default: the method's own for this data set, if it has one)",
    )
    parser.add_argument("--vocab", metavar="NAME|FILE", help="words in place of those of the protocol")
    parser.add_argument("--novel", nargs="+", default=[], metavar="CLASS", help="the others are base classes")
    parser.add_argument("--limit", type=int, metavar="N", help="only N images, spread over the data set")
    parser.add_argument("--out", type=Path, metavar="DIR", help="(default: ovseg_eval/MODEL/DATA.PROTOCOL)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    parser.add_argument("--batch-size", type=int, metavar="N", help="windows at a time")
    parser.add_argument(
        "--launcher",
        choices=("none", "pytorch"),
        default="none",
        help="pytorch: share the images under torchrun",
    )
    add_box_options(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Evaluates and writes the report.

    Returns:
        0, or 1 if some images were left out or figures fell; each is named on stderr.

    Raises:
        ValueError: Wrong use: the model, the data set, the protocol or the words do not exist or fit.
        FileNotFoundError: The data set is not there.
    """
    if args.limit is not None and args.limit < 1:
        raise ValueError(f"--limit must be at least 1, got {args.limit}")
    of_config = bool(args.checkpoint) or (args.model or "").endswith(".py")
    import_openmmlab(components=of_config)
    if args.suite:
        return _run_suite(args)
    if args.against:
        raise ValueError("--against goes with --suite")
    if of_config:
        return _run_config(args)
    from ovseg.evaluation.box_sets import BoxSet
    from ovseg.evaluation.evaluate import evaluate
    from ovseg.evaluation.loop import launch
    from ovseg.evaluation.report import report, write_report

    reports = launch(args.launcher)
    predictor, data, paper = _open(args)
    if isinstance(data, BoxSet):
        return run_boxes(args, predictor, data, reports)
    folder = args.out or Path("ovseg_eval") / predictor.name / f"{data.name}.{predictor.protocol.name}"
    start = time.perf_counter()
    count = min(len(data), args.limit or len(data))
    with progress("evaluating", count if reports else 0) as advance:
        found = evaluate(predictor, data, folder=folder, limit=args.limit, progress=advance)
    if found is None:
        return 0
    summary = report(found, data, paper=paper, seconds=time.perf_counter() - start)
    for path in write_report(folder, summary):
        print(path)
    for record in found.failures:
        say(f"left out: {record.name}: {record.error}")
    say(_line(summary))
    return 1 if found.failures else 0


def _line(summary: dict[str, Any]) -> str:
    parts = [f"mIoU {summary['miou']}", f"pixel accuracy {summary['pixel_accuracy']}"]
    if summary["paper"] is not None:
        parts.insert(1, f"published {summary['paper']}")
    parts += [f"{name.replace('_', ' ')} {value}" for name, value in summary["groups"].items()]
    return f"{', '.join(parts)} ({summary['images']} images)"


def _open(args: argparse.Namespace) -> tuple[Predictor, EvaluationSet | BoxSet, float | None]:
    """The predictor, the data with the protocol's words, and the published figure."""
    import ovseg
    from ovseg.evaluation.box_sets import BOX_SETS, is_box_set, open_box_set
    from ovseg.evaluation.protocols import choose_protocol, published
    from ovseg.evaluation.sets import open_set
    from ovseg.methods.registry import zoo_row
    from ovseg.release import read_release
    from ovseg.vocab.vocabulary import Vocabulary

    if args.model is None:
        say(f"note: no model is named, so this is {EMBEDDED_MODEL}; `ovseg models` lists others")
    name = args.model or EMBEDDED_MODEL
    row = None if name.endswith(".safetensors") else zoo_row(name)
    if row is None:
        release = read_release(name)
        protocol = choose_protocol(release.recipe.method, release.protocol, args.data, args.protocol)
    else:
        protocol = choose_protocol(row.method, row.protocol, args.data, args.protocol)
    words = args.vocab or (protocol.words if args.data in protocol.name else None)
    vocabulary = Vocabulary.of(words) if words else None
    if args.proposals and not is_box_set(args.data):
        raise ValueError(f"--proposals goes with data that has boxes: {', '.join(BOX_SETS)}, or a .json file")
    opened = open_box_set if is_box_set(args.data) else open_set
    data = opened(args.data, args.data_root, args.split, vocabulary, args.novel)
    say(f"loading {name}; {len(data)} images, protocol {protocol.name}")
    predictor = ovseg.load(name, protocol=protocol, device=args.device, batch_size=args.batch_size)
    return predictor, data, published(row, args.data, protocol, args.vocab) if row else None


def _run_config(args: argparse.Namespace) -> int:
    """Tests what a training left behind, as ``tools/test.py`` does."""
    from ovseg.training.run import test

    if not args.checkpoint or not (args.model or "").endswith(".py"):
        raise ValueError(
            "a config and its checkpoint go together: ovseg eval CONFIG.py --checkpoint work_dirs/x/best.pth"
        )
    wrong = [f"--{name}" for name in ("protocol", "vocab", "limit", "split") if getattr(args, name)]
    if wrong:
        raise ValueError(f"a config says itself how it is tested: leave out {', '.join(wrong)}")
    root = args.data_root if args.data_root != _DATA_ROOT else None
    with redirect_stdout(sys.stderr):  # where mmengine logs to
        found = test(args.model, args.checkpoint, args.out, data_root=root, launcher=args.launcher)
    for name, value in found.items():
        print(f"{name} {value}")
    return 0


def _run_suite(args: argparse.Namespace) -> int:
    from ovseg.evaluation.suite import regressions, run_suite

    if args.model is not None or args.protocol or args.vocab:
        raise ValueError(
            "--suite runs all models with their own settings: leave out NAME, --protocol, --vocab"
        )
    folder = args.out or Path("ovseg_eval") / f"suite.{args.suite}"
    paths = run_suite(folder, suite=args.suite, images=args.limit or 24, say=say)
    for path in paths:
        print(path)
    if args.against is None:
        return 0
    rows, reference = (json.loads(path.read_text(encoding="utf-8")) for path in (paths[0], args.against))
    fallen = regressions(rows, reference)
    for line in fallen:
        say(f"fell by more than a point: {line}")
    return 1 if fallen else 0
