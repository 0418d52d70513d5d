from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from PIL import Image

from ovseg.inference import read_ahead as module
from ovseg.inference.images import ImageError
from ovseg.inference.read_ahead import read_ahead


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{i:02}.png" for i in range(12)]
    for i, path in enumerate(paths):
        Image.new("RGB", (4, 3), (i, 0, 0)).save(path)
    return paths


def test_in_order_whatever_takes_long(files, monkeypatch):
    decode = module.read_image

    def slow(path):
        time.sleep(0.02 * (int(path.stem) % 3 == 0))
        return decode(path)

    monkeypatch.setattr(module, "read_image", slow)
    pairs = [(source, read()[0, 0, 0]) for source, read in read_ahead(files, workers=3)]
    assert pairs == [(path, i) for i, path in enumerate(files)]


def test_decodes_while_the_consumer_works_but_not_far_ahead(files, monkeypatch):
    decoded, taken = [], []
    decode = module.read_image
    monkeypatch.setattr(module, "read_image", lambda path: decoded.append(path) or decode(path))
    stream = read_ahead((taken.append(path) or path for path in files), workers=2)
    next(stream)
    deadline = time.monotonic() + 5
    while len(decoded) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert len(decoded) == len(taken) == 3
    stream.close()


def test_a_bad_file_fails_only_itself(files):
    files[1].write_text("no image")
    reads = [read for _, read in read_ahead(files[:3])]
    with pytest.raises(ImageError, match="01"):
        reads[1]()
    assert reads[2]()[0, 0, 0] == 2


def test_memory_that_is_used_again_is_read_at_once(files):
    frame = np.zeros((2, 2, 3), np.uint8)

    def frames():
        yield files[5]
        for i in range(3):
            frame[:] = i
            yield frame

    assert [read()[0, 0, 0] for _, read in read_ahead(frames())] == [5, 0, 1, 2]


def test_an_error_of_the_stream_itself_comes_through(files):
    def broken():
        yield files[0]
        raise RuntimeError("the list ends here")

    with pytest.raises(RuntimeError, match="ends here"):
        list(read_ahead(broken(), workers=1))


def test_no_thread_is_left(files):
    stream = read_ahead(files)
    next(stream)
    stream.close()
    deadline = time.monotonic() + 5
    while _threads() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not _threads()


def _threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("ovseg-decode")]
