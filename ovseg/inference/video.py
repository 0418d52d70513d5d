"""Segmenting a video: frames in order, read ahead, their scores smoothed over time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from ovseg.dense.score_field import ScoreField
from ovseg.inference.render import overlay, with_key
from ovseg.inference.results import SegResult
from ovseg.inference.threads import in_background
from ovseg.inference.video_source import VideoSource

__all__ = ["Smoother", "VideoFrame", "VideoStream", "draw"]

_BINS = 4  # per colour channel, of the histograms that tell scenes apart
_CUT = 0.4  # share of the pixels that must change their bin


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """A segmented frame.

    Attributes:
        result: Labels, scores, and the picture.
        time: Seconds from the start of the source.
        index: Counts the frames from 0.
    """

    result: SegResult
    time: float
    index: int


class VideoStream:
    """The frames of a video, segmented one after the other. Iterate over it once.

    Attributes:
        source: Where they come from; ``source.broken`` counts those that could not be read.
    """

    def __init__(self, source: VideoSource, segment: Callable[[np.ndarray, str | None], SegResult]) -> None:
        self.source, self._segment = source, segment

    def __iter__(self) -> Iterator[VideoFrame]:
        with closing(in_background(self.source)) as frames:
            for frame in frames:
                name = f"{self.source.name}#{frame.index}"
                yield VideoFrame(self._segment(frame.image, name), frame.time, frame.index)


class Smoother:
    """Exponential mean of the scores over the frames; it starts afresh where the scene changes.

    Scores are averaged at the resolution of patches and before any activation.

    Args:
        weight: Of the past, 0 to below 1. With 0.8 a frame counts for 5 frames or so.

    Raises:
        ValueError: ``weight`` is out of range.
    """

    def __init__(self, weight: float) -> None:
        if not 0 <= weight < 1:
            raise ValueError(f"smoothing must lie between 0 and below 1, got {weight}")
        self.weight = weight
        self._past: ScoreField | None = None
        self._histogram: np.ndarray | None = None

    def __call__(self, field: ScoreField, image: np.ndarray) -> ScoreField:
        """The field of a frame (H, W, 3), mixed with those before it."""
        if not self.weight:
            return field
        histogram = _histogram(image)
        past, before = self._past, self._histogram
        cut = before is None or np.abs(histogram - before).sum() / 2 > _CUT
        if not cut and past is not None and _alike(past, field):
            layers = tuple(
                replace(new, scores=new.scores.lerp(old.scores, self.weight))
                for new, old in zip(field.layers, past.layers)
            )
            field = replace(field, layers=layers)
        self._past, self._histogram = field, histogram
        return field


def draw(frame: VideoFrame) -> np.ndarray:
    """The frame with its classes painted over it and a key of all classes, (H', W', 3) uint8 RGB."""
    result = frame.result
    if result.image is None:
        raise ValueError("this frame keeps no image to draw on")
    return with_key(
        overlay(result.image, result.label_map, result.vocabulary, legend=False), result.vocabulary
    )


def _alike(a: ScoreField, b: ScoreField) -> bool:
    shapes = [[layer.scores.shape for layer in field.layers] for field in (a, b)]
    return shapes[0] == shapes[1] and a.size == b.size and a.output_size == b.output_size


def _histogram(image: np.ndarray) -> np.ndarray:
    """Shares (64,) of the colours in a thinned-out picture."""
    step = max(1, min(image.shape[:2]) // 64)
    bins = image[::step, ::step].reshape(-1, 3).astype(np.int64) // (256 // _BINS)
    counts = np.bincount(bins @ np.array([_BINS * _BINS, _BINS, 1]), minlength=_BINS**3)
    return counts / counts.sum()
