from __future__ import annotations

import sys
import threading
import time
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("av")

from video_clips import SIZE, frames_of, make_clip, picture

from ovseg._files import WriteError
from ovseg.dense.score_field import ScoreField
from ovseg.dense.windows import slide
from ovseg.inference.threads import Worker, in_background
from ovseg.inference.video import Smoother, VideoStream
from ovseg.inference.video_source import Clip, VideoError, VideoSource, open_video
from ovseg.inference.video_writer import VideoWriter

EVEN = [i / 25 for i in range(20)]
UNEVEN = [0.0, 0.04, 0.1, 0.5, 0.52, 0.9]


def _copy(source, path, **options):
    with VideoWriter(path, source, **options) as video:
        for frame in source:
            video.write(frame.image, frame.time)
    return path


# Reading


def test_reads_frames_with_their_times(tmp_path):
    frames = list(open_video(make_clip(tmp_path / "a.mp4", UNEVEN)))
    np.testing.assert_allclose([frame.time for frame in frames], UNEVEN, atol=1e-4)
    for i, frame in enumerate(frames):
        assert frame.index == i and frame.image.shape == (*SIZE, 3)
        np.testing.assert_allclose(frame.image[-4:, -4:], 8 * i, atol=6)


def test_turns_what_a_phone_filmed_upright(tmp_path):
    (frame,) = open_video(make_clip(tmp_path / "a.mp4", [0.0], rotate=True))
    assert frame.image.shape == (64, 48, 3)
    assert frame.image[:20, 30:].mean() > 240, "the white quarter has moved to the top right"
    assert frame.image[:20, :18].mean() < 10


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        (Clip(start=0.2), EVEN[5:]),
        (Clip(start=0.26, end=0.5), EVEN[7:13]),
        (Clip(stride=7), EVEN[::7]),
        (Clip(start=0.2, stride=3), EVEN[5::3]),
        (Clip(start=50), []),
    ],
)
def test_part_of_a_video(tmp_path, clip, expected):
    frames = list(open_video(make_clip(tmp_path / "a.mp4", EVEN), clip))
    np.testing.assert_allclose([frame.time for frame in frames], expected, atol=1e-4)
    if frames:
        np.testing.assert_allclose(frames[0].image[-1, -1], 8 * round(frames[0].time * 25), atol=6)


@pytest.mark.parametrize(
    "wrong", [{"start": -1}, {"start": float("nan")}, {"start": 2, "end": 1}, {"stride": 0}, {"fps": 0}]
)
def test_parts_that_cannot_be(wrong):
    with pytest.raises(ValueError, match=next(reversed(wrong))):
        Clip(**wrong)


def test_broken_frames_are_left_out_and_counted(tmp_path):
    path = make_clip(tmp_path / "a.mp4", EVEN)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat")
    rng = np.random.default_rng(0)
    data[start + 900 : start + 1100] = rng.integers(0, 256, 200, np.uint8).tobytes()
    path.write_bytes(data)
    source = open_video(path)
    frames = list(source)
    assert source.broken >= 1
    assert 5 <= len(frames) < 20


def test_a_video_that_is_cut_off_gives_what_there_is(tmp_path):
    path = make_clip(tmp_path / "a.mkv", EVEN)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 7 // 10])
    assert 0 < len(list(open_video(path))) < 20


def test_a_folder_of_frames(tmp_path):
    for i in range(4):
        Image.fromarray(picture(i)).save(tmp_path / f"{i:03}.png")
    (tmp_path / "002.png").write_bytes(b"no image")
    source = open_video(tmp_path, Clip(fps=10))
    assert [frame.time for frame in source] == [0.0, 0.1, 0.3]
    assert source.broken == 1 and source.total == 4


def test_a_camera(monkeypatch):
    import cv2

    class Camera:
        left = 3

        def __init__(self, number):
            self.number = number

        def isOpened(self):  # noqa: N802
            return self.number == 0

        def get(self, _):
            return 30.0

        def read(self):
            Camera.left -= 1
            return Camera.left >= 0, np.full((4, 6, 3), (1, 2, 3), np.uint8)

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    frames = list(open_video(0))
    assert len(frames) == 3 and frames[0].image[0, 0].tolist() == [3, 2, 1], "cameras give BGR"
    with pytest.raises(VideoError, match="camera 1 cannot be opened"):
        open_video(1)


def test_a_camera_as_opencv_gives_it(tmp_path, monkeypatch):
    """No camera here: OpenCV's own capture plays a file in its place, so that all but the device is real."""
    import cv2

    capture, path = cv2.VideoCapture, str(make_clip(tmp_path / "a.mp4", EVEN))
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: capture(path if number == 3 else "/nowhere"))
    source = open_video(3, Clip(stride=2))
    frames = list(source)
    assert source.rate == 25 and source.total is None and source.name == "camera 3"
    assert len(frames) == 10 and frames[0].image.shape == (*SIZE, 3)
    for i, frame in enumerate(frames):
        np.testing.assert_allclose(frame.image[-4:, -4:], 16 * i, atol=8)
    assert [frame.time for frame in frames] == sorted(frame.time for frame in frames)
    with pytest.raises(VideoError, match="camera 1 cannot be opened"):
        open_video(1)


def test_where_there_is_no_camera():
    with pytest.raises(VideoError, match="camera 97 cannot be opened; check its number"):
        open_video(97)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "no video or damaged"), (b"text", "no video or damaged"), (None, "does not exist")],
)
def test_what_is_no_video(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(VideoError, match=message):
        open_video(tmp_path / "a.mp4")


def test_without_pyav_the_error_names_the_extra(tmp_path, monkeypatch):
    path = make_clip(tmp_path / "a.mp4", [0.0])
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"pip install 'ovseg\[video\]'"):
        open_video(path)


# Writing


@pytest.mark.parametrize("size", [(48, 64), (46, 62), (64, 48)])
def test_what_is_written_is_what_was_read(tmp_path, size):
    source = open_video(make_clip(tmp_path / "a.mp4", UNEVEN, size=size))
    back = frames_of(_copy(source, tmp_path / "b.mp4"))
    np.testing.assert_allclose([time for time, _ in back], UNEVEN, atol=1e-4)
    assert back[0][1].shape == (*size, 3)
    assert [round(image[-1, -1].mean() / 8) for _, image in back] == list(range(6))


def test_odd_sizes_are_padded(tmp_path):
    source = open_video(make_clip(tmp_path / "a.mp4", [0.0]))
    with VideoWriter(tmp_path / "b.mp4", source) as video:
        video.write(picture(9, (41, 33)), 0.0)
        video.write(picture(9, (80, 20)), 0.1)
    assert [image.shape for _, image in frames_of(tmp_path / "b.mp4")] == [(42, 34, 3)] * 2


def test_browsers_can_play_it(tmp_path):
    import av

    path = _copy(open_video(make_clip(tmp_path / "a.mp4", EVEN)), tmp_path / "b.mp4")
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "it can be played while it loads"


@pytest.mark.parametrize("start", [0.0, 0.4])
def test_sound_is_kept(tmp_path, start):
    import av

    path = make_clip(tmp_path / "a.mp4", EVEN, sound=True)
    source = open_video(path, Clip(start=start))
    assert source.has_audio
    with av.open(str(_copy(source, tmp_path / "b.mp4", audio=True))) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert abs(samples / 16000 - (0.8 - start)) < 0.15
    with pytest.raises(ValueError, match="no sound"):
        VideoWriter(tmp_path / "c.mp4", open_video(make_clip(tmp_path / "d.mp4", [0.0])), audio=True)


def test_ctrl_c_leaves_the_frames_so_far(tmp_path):
    source = open_video(make_clip(tmp_path / "a.mp4", EVEN))
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "b.mp4", source) as video:
        for frame in source:
            video.write(frame.image, frame.time)
            if frame.index == 6:
                raise KeyboardInterrupt
    assert len(frames_of(tmp_path / "b.mp4")) == 7


def test_another_error_leaves_no_file(tmp_path):
    source = open_video(make_clip(tmp_path / "a.mp4", EVEN))
    (tmp_path / "b.mp4").write_text("old")
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "b.mp4", source) as video:
        video.write(next(iter(source)).image, 0.0)
        raise RuntimeError
    assert (tmp_path / "b.mp4").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_where_it_cannot_be_written(tmp_path):
    source = open_video(make_clip(tmp_path / "a.mp4", [0.0]))
    with pytest.raises(ValueError, match=r"\.mp4, \.mov"):
        VideoWriter(tmp_path / "b.avi", source)
    with (
        pytest.raises(WriteError, match="not a folder"),
        VideoWriter(tmp_path / "a.mp4" / "b.mp4", source) as video,
    ):
        video.write(picture(0), 0.0)
    with pytest.raises(ValueError, match="no frame"), VideoWriter(tmp_path / "c.mp4", source):
        pass
    assert not (tmp_path / "c.mp4").exists()


# Smoothing


def _field(value):
    import torch

    scores = torch.full((1, 2, 3, 4), float(value))
    return ScoreField.from_windows(scores, slide((48, 64)))


def test_smoothing_is_an_exponential_mean():
    smoother, image = Smoother(0.75), picture(0)
    values = [float(smoother(_field(value), image).full()[0, 0, 0]) for value in (0, 1, 1)]
    np.testing.assert_allclose(values, [0, 0.25, 0.4375], atol=1e-6)


def test_smoothing_ends_at_a_cut_and_not_before():
    smoother = Smoother(0.75)
    smoother(_field(0), picture(10))
    assert smoother(_field(1), np.roll(picture(20), 5, axis=1)).full().max() == pytest.approx(0.25)
    assert smoother(_field(1), picture(200)).full().max() == 1


def test_smoothing_of_frames_of_another_size():
    smoother = Smoother(0.5)
    smoother(_field(0), picture(10))
    import torch

    other = ScoreField.from_windows(torch.ones(1, 2, 4, 4), slide((64, 64)))
    assert smoother(other, picture(10)).full().min() == 1


@pytest.mark.parametrize("weight", [-0.1, 1.0, float("nan")])
def test_smoothing_out_of_range(weight):
    with pytest.raises(ValueError, match="below 1"):
        Smoother(weight)


def test_predictor_video(tiny_clip, tmp_path):
    import ovseg

    predictor = ovseg.build("maskclip", tiny_clip)
    stream = predictor.video(make_clip(tmp_path / "a.mp4", EVEN[:3]), ["cat", "dog"], smoothing=0.5)
    frames = list(stream)
    assert [frame.index for frame in frames] == [0, 1, 2] and stream.source.broken == 0
    assert frames[0].result.size == SIZE and frames[2].result.source.endswith("a.mp4#2")
    first = next(iter(open_video(tmp_path / "a.mp4"))).image
    alone = predictor.segment(first, ["cat", "dog"])
    np.testing.assert_array_equal(frames[0].result.label_map, alone.label_map)


# Threads


def test_background_reading_is_in_order_bounded_and_ends():
    taken = []
    stream = in_background((taken.append(i) or i for i in range(100)), depth=2)
    assert next(stream) == 0
    time.sleep(0.1)
    assert len(taken) <= 4
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "ovseg-read"]
    assert list(in_background(range(50))) == list(range(50))


def test_background_reading_passes_errors_on():
    def broken():
        yield 1
        raise RuntimeError("here")

    stream = in_background(broken())
    assert next(stream) == 1
    with pytest.raises(RuntimeError, match="here"):
        next(stream)


def test_worker_is_in_order_and_passes_errors_on():
    done = []
    worker = Worker(done.append)
    for i in range(10):
        worker.put(i)
    worker.close()
    assert done == list(range(10))

    worker = Worker(lambda item: 1 / item)
    worker.put(0)
    with pytest.raises(ZeroDivisionError):
        for _ in range(100):
            worker.put(1)
            time.sleep(0.001)
    worker.close()


def test_decoding_segmenting_and_drawing_run_side_by_side():
    """Frame s is decoded, s - 1 segmented and s - 2 drawn in one moment: each waits until all three are there."""
    count, meetings = 8, threading.Barrier(3)

    def meet(step):
        if 2 <= step < count:
            meetings.wait(timeout=60)

    class Met(VideoSource):
        def _raw(self):
            for i in range(count):
                meet(i)
                yield i / 25, lambda: picture(0)

    frames = iter(range(count))

    def segment(image, name):
        meet(next(frames) + 1)
        return image

    worker = Worker(lambda frame: meet(frame.index + 2))
    for frame in VideoStream(Met("met", Clip(), Fraction(25), None), segment):
        worker.put(frame)
    worker.close()
    assert not meetings.broken
