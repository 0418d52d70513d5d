"""``ovseg video``: a moving picture in, one with its classes painted over it out."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg.cli.console import progress, say
from ovseg.cli.options import (
    add_class_options,
    add_detail_option,
    add_model_options,
    open_predictor,
    read_vocabulary,
    set_classes,
)

if TYPE_CHECKING:
    from ovseg.inference.video import VideoFrame

__all__ = ["add_parser", "run"]

_EXAMPLES = """examples:
  ovseg video street.mp4 --classes road car "person: man | woman" --out street.seg.mp4
  ovseg video street.mp4 --vocab ade150 --start 60 --end 90 --stride 5 --labels street.jsonl
  ovseg video frames/ --fps 10 --classes cat --smoothing 0.7 --labels labels/
  ovseg video 0 --classes hand cup --out camera.mp4           (camera 0, until Ctrl-C)
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Registers the sub-command."""
    parser = subparsers.add_parser(
        "video",
        help="segment a video",
        description="Segment a video. Prints the paths of the results. Ctrl-C keeps what there is.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", metavar="INPUT", help="a file, a folder of frames, or a camera's number")
    add_class_options(parser)
    add_model_options(parser)
    add_detail_option(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the video (default: ovseg_out/INPUT.overlay.mp4)"
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="PATH",
        help="labels too: a .jsonl file of RLE, or a folder of PNG files",
    )
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="seconds to leave out at first")
    parser.add_argument("--end", type=float, metavar="S", help="seconds at which to stop")
    parser.add_argument("--stride", type=int, default=1, metavar="N", help="take each N-th frame")
    parser.add_argument("--fps", type=float, metavar="R", help="frames per second of a folder (default: 25)")
    parser.add_argument(
        "--smoothing",
        type=float,
        default=0.0,
        metavar="W",
        help="share of the past in the scores, 0 (default) to below 1; it ends where the scene changes",
    )
    parser.add_argument("--audio", action="store_true", help="keep the sound")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Segments the video.

    Returns:
        0.

    Raises:
        ValueError: Wrong use, or the video cannot be read.
        ImportError: PyAV is not installed.
    """
    from ovseg.inference.video import Smoother
    from ovseg.inference.video_labels import label_writer
    from ovseg.inference.video_source import Clip, open_video
    from ovseg.inference.video_writer import VideoWriter

    vocabulary = read_vocabulary(args)
    camera = args.input.isdecimal() and not Path(args.input).exists()
    source = int(args.input) if camera else args.input
    clip = Clip(args.start, args.end, args.stride, args.fps)
    name = f"camera{source}" if camera else Path(args.input).resolve().name
    out = args.out or Path("ovseg_out") / f"{name}.overlay.mp4"
    if not camera:  # a wrong file shows before the model loads; a camera is opened once
        VideoWriter(out, open_video(source, clip), args.audio)
    Smoother(args.smoothing)
    sinks: list[Any] = [label_writer(args.labels)] if args.labels else []
    predictor = open_predictor(args)
    set_classes(predictor, vocabulary, args)
    options = {"background": args.background, "smoothing": args.smoothing, "detail": args.detail}
    stream = predictor.video(source, clip=clip, **options)
    video = VideoWriter(out, stream.source, args.audio)
    start = time.perf_counter()
    try:
        with contextlib.ExitStack() as stack, progress("segmenting", stream.source.total) as advance:
            for sink in (video, *sinks):
                stack.enter_context(sink)
            _copy(stream, video, sinks, advance)
    except KeyboardInterrupt:
        if video.frames:
            _report(video, sinks, start)
        raise
    _report(video, sinks, start)
    return 0


def _report(video: Any, sinks: list[Any], start: float) -> None:
    rate = video.frames / (time.perf_counter() - start)
    say(f"{video.frames} frames, {video.source.broken} broken, {rate:.2g} frames per second")
    for sink in (video, *sinks):
        print(sink.path, flush=True)


def _copy(stream: Any, video: Any, sinks: list[Any], advance: Callable[[], None]) -> None:
    """Draws and writes in a thread, while the next frame is segmented."""
    from ovseg.inference.threads import Worker
    from ovseg.inference.video import draw

    def write(frame: VideoFrame) -> None:
        video.write(draw(frame), frame.time)
        for sink in sinks:
            sink.write(frame)
        advance()

    worker = Worker(write)
    try:
        for frame in stream:
            worker.put(frame)
    finally:
        worker.close()
