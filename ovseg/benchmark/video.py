"""Video: a clip to a segmented clip, against its slowest stage alone (decoding, segmenting, or drawing).

``video.overlap`` is the embedded model, whose time on a CPU hides the other stages. In ``video.balanced`` the
model is a wait as long as the slower of the others, as a GPU would take, so that only stages that really run
side by side reach a ratio near 1; one after the other they would take ``sum_ms``.
"""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ovseg.benchmark.harness import record, time_ms
from ovseg.inference.results import SegResult
from ovseg.inference.threads import Worker
from ovseg.inference.video import VideoFrame, VideoStream, draw
from ovseg.inference.video_source import Clip, VideoSource, open_video
from ovseg.inference.video_writer import VideoWriter
from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["run"]

_MODEL = "maskclip_vit_tiny.emoji"
_CLASSES = ("house", "tree", "cow", "car", "person")
_SIZE = (480, 640)
_Segment = Callable[[np.ndarray, str | None], SegResult]


def run() -> Iterator[dict[str, Any]]:
    """Yields times of all and of each stage alone, and ``ratio`` of all to the slowest stage."""
    from ovseg.api import load

    with tempfile.TemporaryDirectory() as folder:
        predictor = load(_MODEL)
        predictor.set_vocabulary(_CLASSES)
        yield _measure("video.overlap", Path(folder), lambda image, name: predictor.segment(image), 24)
        yield _balanced(Path(folder), 60)


def _balanced(folder: Path, count: int, repeats: int = 3) -> dict[str, Any]:
    vocabulary = Vocabulary.of(_CLASSES)
    labels = np.kron(np.arange(80).reshape(8, 10) % 6 - 1, np.ones((60, 64))).astype(np.int32)
    scores = np.ones(_SIZE, np.float16)
    pause = 0.0

    def segment(image: np.ndarray, name: str | None) -> SegResult:
        time.sleep(pause)
        return SegResult(labels, scores, vocabulary, image=image)

    stages = _measure("video.balanced", folder, segment, count, repeats=1)
    pause = max(stages["decode_ms"], stages["write_ms"]) / count / 1000
    return _measure("video.balanced", folder, segment, count, repeats)


def _measure(name: str, folder: Path, segment: _Segment, count: int, repeats: int = 3) -> dict[str, Any]:
    """Times each stage alone, with what it takes made before, then all of them.

    Args:
        name: Of the record.
        folder: For the clips.
        segment: The model.
        count: Frames.
        repeats: Runs that are timed.
    """
    clip = _make_clip(folder / f"clip{count}.mp4", count)
    frames = list(VideoStream(open_video(clip), segment))
    images = [frame.image for frame in open_video(clip)]

    def write(source: Callable[[], Iterable[VideoFrame]]) -> None:
        with VideoWriter(folder / "out.mp4", open_video(clip)) as video:
            worker: Worker[VideoFrame] = Worker(lambda frame: video.write(draw(frame), frame.time))
            for frame in source():
                worker.put(frame)
            worker.close()

    stages = {
        "decode_ms": time_ms(lambda: deque(open_video(clip), maxlen=1), repeats=repeats),
        "segment_ms": time_ms(lambda: [segment(image, None) for image in images], repeats=repeats),
        "write_ms": time_ms(lambda: write(lambda: frames), repeats=repeats),
    }
    total = time_ms(lambda: write(lambda: VideoStream(open_video(clip), segment)), repeats=repeats)
    ratio, together = round(total / max(stages.values()), 3), round(sum(stages.values()), 1)
    return record(name, total_ms=total, sum_ms=together, **stages, ratio=ratio, frames=count, size=_SIZE)


def _make_clip(path: Path, count: int) -> Path:
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (_SIZE[0] // 40, _SIZE[1] // 40, 3), np.uint8)
    still = blocks.repeat(40, axis=0).repeat(40, axis=1)
    source = VideoSource("blocks", Clip(), rate=Fraction(25), seconds=None)
    with VideoWriter(path, source) as video:
        for i in range(count):
            video.write(np.roll(still, 3 * i, axis=1), i / 25)
    return path
