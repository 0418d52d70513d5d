"""``ovseg demo``: the main job on two shipped scenes, offline."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from ovseg.cli.console import say, share_table
from ovseg.cli.options import EMBEDDED_MODEL

__all__ = ["add_parser", "run"]

_SCENES = Path(__file__).parents[1] / "assets" / "demo"


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Registers the sub-command."""
    parser = subparsers.add_parser(
        "demo",
        help="segment two shipped scenes, offline",
        description=f"Segment two shipped drawings with {EMBEDDED_MODEL}, the model that comes with ovseg. "
        "Prints the path of each overlay.",
    )
    parser.add_argument("--out", type=Path, default=Path("demo_out"), metavar="DIR", help="default: demo_out")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Segments the scenes and writes their overlays. Returns 0."""
    start = time.perf_counter()
    import ovseg
    from ovseg.inference.writers import output_path, writer

    scenes = json.loads((_SCENES / "scenes.json").read_text(encoding="utf-8"))
    predictor = ovseg.load(EMBEDDED_MODEL)
    for scene in scenes:
        result = predictor.segment(_SCENES / scene["file"], scene["classes"])
        path, *_ = writer("overlay").write_any(result, output_path(args.out, scene["file"], "overlay"))
        print(path, flush=True)
        title = f"{scene['file']}: {result.seconds:.2f} s"
        share_table(result.vocabulary, result.area(), result.unlabelled, title)
    say(f"{len(scenes)} scenes in {time.perf_counter() - start:.1f} s, loading included")
    return 0
