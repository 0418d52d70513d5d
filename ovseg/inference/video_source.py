"""Moving pictures in: video files, folders of frames, cameras."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ovseg.inference.images import ImageError, read_image
from ovseg.inference.source_files import expand_sources

__all__ = ["Clip", "Frame", "VideoError", "VideoSource", "open_video", "pyav"]

_FOLDER_RATE = 25  # frames per second of a folder, unless the user says otherwise
_Raw = tuple[float, Callable[[], "np.ndarray | None"]]


class VideoError(ValueError):
    """A video cannot be read. The message names it, what is wrong, and the cure."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video.

    Attributes:
        image: (H, W, 3) uint8 RGB, upright.
        time: Seconds from the start of the source.
        index: Counts the frames that are given out, from 0.
    """

    image: np.ndarray
    time: float
    index: int


@dataclass(frozen=True)
class Clip:
    """Which part of a video.

    Attributes:
        start: Seconds from the start of the source.
        end: Seconds; None is the end of the source.
        stride: Takes each n-th frame.
        fps: Frames per second of a folder.
    """

    start: float = 0.0
    end: float | None = None
    stride: int = 1
    fps: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and self.start >= 0):
            raise ValueError(f"start must be 0 or more seconds, got {self.start}")
        if self.end is not None and not self.end > self.start:
            raise ValueError(f"end must lie after start ({self.start} s), got {self.end}")
        if self.stride < 1:
            raise ValueError(f"stride must be 1 or more, got {self.stride}")
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps must be above 0, got {self.fps}")


class VideoSource:
    """Frames of a video. Iterate over it once.

    Attributes:
        name: Path or other name.
        clip: The part that is read.
        rate: Frames per second, on average, before ``clip.stride``.
        total: Frames that will come, where it is known; an estimate.
        broken: Frames that could not be decoded so far; they are left out.
        has_audio: Whether there is sound.
    """

    def __init__(self, name: str, clip: Clip, rate: Fraction, seconds: float | None) -> None:
        self.name, self.clip, self.rate = name, clip, rate
        self.broken, self.has_audio = 0, False
        ends = [end for end in (clip.end, seconds) if end is not None]
        self.total = max(int((min(ends) - clip.start) * rate / clip.stride), 1) if ends else None

    def __iter__(self) -> Iterator[Frame]:
        index = seen = 0
        for moment, read in self._raw():
            if self.clip.end is not None and moment >= self.clip.end:
                return
            if moment < self.clip.start:
                continue
            seen += 1
            if (seen - 1) % self.clip.stride:
                continue
            image = read()
            if image is None:
                self.broken += 1
                continue
            yield Frame(image, moment, index)
            index += 1

    def _raw(self) -> Iterator[_Raw]:
        """All frames: their time, and a function that gives the picture, or None if it is broken."""
        raise NotImplementedError


def open_video(source: str | os.PathLike[str] | int, clip: Clip | None = None) -> VideoSource:
    """Opens a video.

    Args:
        source: A file, a folder of frames (in the order of their names), or the index of a camera.
        clip: The part to read; all of it by default.

    Raises:
        VideoError: It is not there, no video, or damaged.
        ImportError: The extra ``video`` is not installed and ``source`` is a file.
    """
    clip = clip or Clip()
    if isinstance(source, int):
        return _Camera(source, clip)
    path = Path(source)
    if path.is_dir():
        return _Folder(path, clip)
    if not path.exists():
        raise VideoError(f"{path} does not exist; give a video file, a folder of frames or a camera's number")
    return _File(path, clip)


def pyav() -> Any:
    """The PyAV package.

    Raises:
        ImportError: It is not installed; the message says how to.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError("video files need PyAV: pip install 'ovseg[video]'") from error
    return av


class _File(VideoSource):
    def __init__(self, path: Path, clip: Clip) -> None:
        av = pyav()
        self._path = path
        try:
            with av.open(str(path), metadata_errors="ignore") as container:
                if not container.streams.video:
                    raise VideoError(f"{path} has no moving picture in it; give a video file")
                stream = container.streams.video[0]
                rate = Fraction(stream.average_rate or stream.guessed_rate or _FOLDER_RATE)
                seconds = container.duration / av.time_base if container.duration else None
                has_audio = bool(container.streams.audio)
        except av.FFmpegError as error:
            raise VideoError(f"{path} is no video or damaged ({error.strerror}); copy it again") from error
        super().__init__(str(path), clip, rate, seconds)
        self.has_audio = has_audio

    def _raw(self) -> Iterator[_Raw]:
        with pyav().open(str(self._path), metadata_errors="ignore") as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            first = stream.start_time or 0
            if self.clip.start:
                container.seek(first + int(self.clip.start / stream.time_base), stream=stream)
            previous = -1 / self.rate
            for frame in self._decoded(container, stream):
                moment = (
                    previous + 1 / self.rate if frame.pts is None else (frame.pts - first) * stream.time_base
                )
                previous = moment
                yield float(moment), _reader(frame)

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        error = pyav().FFmpegError
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except error:  # the rest of the file cannot be told apart
                self.broken += 1
                return
            try:
                yield from packet.decode()
            except error:
                self.broken += 1


def _reader(frame: Any) -> Callable[[], np.ndarray | None]:
    def read() -> np.ndarray | None:
        if frame.is_corrupt:
            return None
        turns = round(frame.rotation / 90) % 4  # counter-clockwise, as numpy turns
        return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))

    return read


class _Folder(VideoSource):
    def __init__(self, path: Path, clip: Clip) -> None:
        self._files = expand_sources([path])
        rate = Fraction(clip.fps or _FOLDER_RATE).limit_denominator(1001)
        super().__init__(str(path), clip, rate, float(len(self._files) / rate))

    def _raw(self) -> Iterator[_Raw]:
        for i, file in enumerate(self._files):
            yield float(i / self.rate), lambda file=file: _image_or_none(file)  # type: ignore[misc]


def _image_or_none(path: os.PathLike[str]) -> np.ndarray | None:
    try:
        return read_image(path)
    except ImageError:
        return None


class _Camera(VideoSource):
    def __init__(self, number: int, clip: Clip) -> None:
        import cv2

        self._camera = cv2.VideoCapture(number)
        if not self._camera.isOpened():
            raise VideoError(
                f"camera {number} cannot be opened; check its number and that no program uses it"
            )
        rate = Fraction(self._camera.get(cv2.CAP_PROP_FPS) or _FOLDER_RATE).limit_denominator(1001)
        super().__init__(f"camera {number}", clip, rate, None)

    def _raw(self) -> Iterator[_Raw]:
        begin = time.monotonic()
        try:
            while (answer := self._camera.read())[0]:
                picture = answer[1]
                yield time.monotonic() - begin, lambda p=picture: np.ascontiguousarray(p[..., ::-1])  # type: ignore[misc]
        finally:
            self._camera.release()
