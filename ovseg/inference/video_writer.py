"""Moving pictures out: H.264 that browsers play, with the times of the frames and, on request, the sound."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ovseg._files import WriteError, atomic_path
from ovseg.inference.video_source import VideoSource, pyav

__all__ = ["VIDEO_SUFFIXES", "VideoWriter"]

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".m4v")
_TICKS = 90_000  # per second
_QUALITY = {"crf": "20", "preset": "veryfast"}


class VideoWriter:
    """Writes a video. A context manager; the file appears when it is left, whole.

    After Ctrl-C it holds the frames so far. After any other error there is no file.

    Args:
        path: Its name; the suffix is one of ``VIDEO_SUFFIXES``.
        source: What the frames come from: gives their rate, and the sound.
        audio: Copy the sound.

    Attributes:
        path: As given.
        source: As given.
        frames: How many have been written.

    Raises:
        ValueError: The suffix is another, or there is no sound to copy.
        ImportError: The extra ``video`` is not installed.
    """

    def __init__(self, path: Path, source: VideoSource, audio: bool = False) -> None:
        pyav()
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            raise ValueError(f"{path}: a video is written to {', '.join(VIDEO_SUFFIXES)} files")
        if audio and not source.has_audio:
            raise ValueError(f"{source.name} has no sound to keep; leave out audio")
        self.path, self.source, self.frames = path, source, 0
        self._audio = audio
        self._stack = contextlib.ExitStack()
        self._container: Any = None
        self._first, self._ticks = 0.0, -1

    def __enter__(self) -> VideoWriter:
        self._temporary = self._stack.enter_context(atomic_path(self.path))
        return self

    def write(self, image: np.ndarray, time: float) -> None:
        """Adds a frame (H, W, 3) uint8 RGB at a time in seconds of the source. Later ones get its size.

        Raises:
            WriteError: The file cannot be written.
        """
        av = pyav()
        with self._named_errors():
            if self._container is None:
                self._open(image, time)
            frame = av.VideoFrame.from_ndarray(self._fitted(image), format="rgb24")
            frame.time_base = Fraction(1, _TICKS)
            self._ticks = frame.pts = max(round((time - self._first) * _TICKS), self._ticks + 1)
            self._container.mux(self._stream.encode(frame))
            self._copy_sound(time)
            self.frames += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt) and self.frames > 0
        if kind is not None and not stopped:
            if self._container is not None:
                with contextlib.suppress(Exception):
                    self._container.close()
            self._stack.__exit__(kind, error, traceback)
            return
        with self._stack:
            self._finish()

    def _finish(self) -> None:
        if self._container is None:
            raise ValueError(f"{self.source.name}: no frame could be read, so {self.path} is not written")
        with self._named_errors():
            self._container.mux(self._stream.encode())
            self._copy_sound(self._first + (self._ticks + 1) / _TICKS + float(1 / self.source.rate))
            self._container.close()

    def _open(self, image: np.ndarray, time: float) -> None:
        av = pyav()
        if "libx264" not in av.codecs_available:
            raise ImportError("this PyAV has no H.264 encoder; install it from PyPI: pip install av")
        options = {"movflags": "+faststart"} if self.path.suffix.lower() != ".mkv" else {}
        self._container = av.open(str(self._temporary), "w", options=options)
        rate = (self.source.rate / self.source.clip.stride).limit_denominator(1001)
        self._stream = self._container.add_stream("libx264", rate=rate, options=_QUALITY)
        height, width = image.shape[:2]
        self._stream.width, self._stream.height = width + width % 2, height + height % 2  # for 4:2:0
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, _TICKS)
        self._first = time
        if self._audio:
            self._packets = _sound(self.source.name, self._container, time)
            self._waiting = next(self._packets, None)

    def _fitted(self, image: np.ndarray) -> np.ndarray:
        import cv2

        height, width = self._stream.height, self._stream.width
        more = (height - image.shape[0], width - image.shape[1])
        if more == (0, 0):
            return image
        if all(0 <= n <= 1 for n in more):
            return np.pad(image, ((0, more[0]), (0, more[1]), (0, 0)), mode="edge")
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)

    def _copy_sound(self, until: float) -> None:
        while self._audio and self._waiting is not None and self._waiting[0] <= until:
            self._container.mux(self._waiting[1])
            self._waiting = next(self._packets, None)

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except pyav().FFmpegError as error:
            if isinstance(error, OSError):
                raise WriteError(
                    f"cannot write {self.path}: {error.strerror}; free space or write elsewhere"
                ) from error
            raise ValueError(f"{self.path} cannot hold this video ({error}); try an .mkv file") from error


def _sound(name: str, output: Any, first: float) -> Iterator[tuple[float, Any]]:
    """Packets of the sound from a time on, for ``output``, with their times in the source."""
    source = pyav().open(name)
    stream = source.streams.audio[0]
    target = output.add_stream_from_template(stream)

    def packets() -> Iterator[tuple[float, Any]]:
        shift = round(first / stream.time_base) + (stream.start_time or 0)
        with source:
            for packet in source.demux(stream):
                if packet.dts is None or packet.pts is None or packet.pts < shift:
                    continue
                time = float((packet.pts - (stream.start_time or 0)) * stream.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, target
                yield time, packet

    return packets()
