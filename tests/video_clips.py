"""Small video files, for tests."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np

SIZE = (48, 64)


def picture(brightness: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W, 3) grey, its top left quarter white."""
    image = np.full((*size, 3), brightness, np.uint8)
    image[: size[0] // 2, : size[1] // 2] = 255
    return image


def make_clip(
    path: Path,
    times: list[float],
    *,
    size: tuple[int, int] = SIZE,
    sound: bool = False,
    rotate: bool = False,
) -> Path:
    """H.264 with a frame at each time (seconds); their brightness grows by 8. ``rotate``: phone held upright."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10", "g": "5"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 90000)
        tone = container.add_stream("aac", rate=16000) if sound else None
        for i, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(8 * i, size), format="rgb24")
            frame.pts, frame.time_base = round(time * 90000), Fraction(1, 90000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if tone is not None:
            wave = np.sin(np.arange(int(16000 * (times[-1] + 0.04))) / 5).astype(np.float32)[None] / 2
            audio = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            audio.sample_rate, audio.pts, audio.time_base = 16000, 0, Fraction(1, 16000)
            container.mux(tone.encode(audio))
            container.mux(tone.encode())
    if rotate:
        data = bytearray(path.read_bytes())
        matrix = data.index(b"tkhd") + 44  # a quarter turn clockwise
        data[matrix : matrix + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
        path.write_bytes(data)
    return path


def frames_of(path: Path) -> list[tuple[float, np.ndarray]]:
    """(seconds, (H, W, 3) uint8) of a video's frames."""
    import av

    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
