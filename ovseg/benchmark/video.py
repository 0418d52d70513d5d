"""Video: a clip to a segmented clip, against its slowest stage alone (decoding, segmenting, or drawing)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ovseg.benchmark.harness import record, time_ms
from ovseg.inference.threads import Worker
from ovseg.inference.video import VideoFrame, draw
from ovseg.inference.video_source import Clip, VideoSource, open_video
from ovseg.inference.video_writer import VideoWriter

__all__ = ["run"]

_MODEL = "maskclip_vit_tiny.emoji"
_CLASSES = ("house", "tree", "cow", "car", "person")
_SIZE, _FRAMES = (480, 640), 24


def run() -> Iterator[dict[str, Any]]:
    """Yields ``video.overlap``: times of all and of each stage, and ``ratio`` of all to the slowest stage."""
    with tempfile.TemporaryDirectory() as folder:
        yield _measure(Path(folder))


def _measure(folder: Path) -> dict[str, Any]:
    from ovseg.api import load

    clip = _make_clip(folder / "clip.mp4")
    predictor = load(_MODEL)
    predictor.set_vocabulary(_CLASSES)
    frames = list(predictor.video(clip))
    images = [frame.image for frame in open_video(clip)]

    def decode() -> None:
        for _ in open_video(clip):
            pass

    def segment() -> None:
        for image in images:
            predictor.segment(image)

    def write(source: Callable[[], Any] = lambda: frames) -> None:
        with VideoWriter(folder / "out.mp4", open_video(clip)) as video:
            worker: Worker[VideoFrame] = Worker(lambda frame: video.write(draw(frame), frame.time))
            for frame in source():
                worker.put(frame)
            worker.close()

    stages = {
        "decode_ms": time_ms(decode, repeats=3),
        "segment_ms": time_ms(segment, repeats=3),
        "write_ms": time_ms(write, repeats=3),
    }
    total = time_ms(lambda: write(lambda: predictor.video(clip)), repeats=3)
    ratio = round(total / max(stages.values()), 3)
    return record("video.overlap", total_ms=total, **stages, ratio=ratio, frames=_FRAMES, size=_SIZE)


def _make_clip(path: Path) -> Path:
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (_SIZE[0] // 40, _SIZE[1] // 40, 3), np.uint8)
    still = blocks.repeat(40, axis=0).repeat(40, axis=1)
    source = VideoSource("blocks", Clip(), rate=Fraction(25), seconds=None)
    with VideoWriter(path, source) as video:
        for i in range(_FRAMES):
            video.write(np.roll(still, 3 * i, axis=1), i / 25)
    return path
