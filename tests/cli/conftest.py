"""A predictor without a model, so that tests of the command line need not load one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ovseg
from ovseg.inference.images import read_image
from ovseg.inference.results import DetResult, Failure, SegResult
from ovseg.vocab.vocabulary import Vocabulary


class FakePredictor:
    """Gives the left half of every image to the first class and leaves the rest unlabelled."""

    def __init__(self) -> None:
        self.opened: dict = {}
        self.asked: dict = {}

    def set_vocabulary(self, classes, templates=None):
        self.vocabulary = Vocabulary.of(classes)
        self.asked |= {"templates": templates}

    def segment(self, sources, **options):
        self.asked |= options
        for source in sources:
            try:
                image = read_image(source)
            except ValueError as error:
                yield Failure(str(source), error)
                continue
            label_map = np.full(image.shape[:2], -1, np.int32)
            label_map[:, : image.shape[1] // 2] = 0
            scores = np.ones(image.shape[:2], np.float16)
            yield SegResult(label_map, scores, self.vocabulary, source=str(source), image=image)

    def video(self, source, *, clip=None, **options):
        from ovseg.inference.video import VideoStream
        from ovseg.inference.video_source import open_video

        self.asked |= options
        return VideoStream(open_video(source, clip), lambda image, name: next(self.segment([image])))

    def detect(self, sources, **options):
        """Two objects of the first class in every image."""
        self.asked |= options
        for source in sources:
            try:
                image = read_image(source)
            except ValueError as error:
                yield Failure(str(source), error)
                continue
            boxes = np.array([[1, 2, 20, 30], [25, 2, 40, 30]], np.float32)
            scores, labels = np.array([0.9, 0.5], np.float32), np.zeros(2, np.int64)
            yield DetResult(
                boxes, scores, labels, self.vocabulary, image.shape[:2], source=str(source), image=image
            )


@pytest.fixture
def predictor(monkeypatch) -> FakePredictor:
    """What ``ovseg.load`` and ``ovseg.build`` give; ``.opened`` holds what they were asked for."""
    fake = FakePredictor()

    def load(name, **options):
        fake.opened = {"name": name, **options}
        return fake

    def build(method, tower, **options):
        fake.opened = {"method": method, "tower": tower, **options}
        return fake

    monkeypatch.setattr(ovseg, "load", load, raising=False)
    monkeypatch.setattr(ovseg, "build", build, raising=False)
    return fake


@pytest.fixture
def photo(tmp_path) -> Path:
    path = tmp_path / "photo.jpg"
    Image.fromarray(np.full((48, 64, 3), 200, np.uint8)).save(path)
    return path
