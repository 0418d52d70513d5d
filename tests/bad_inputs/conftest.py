"""A predictor without a model, and a picture that is whole."""

from __future__ import annotations

import numpy as np
import pytest
from bad_images import encoded

import ovseg
from ovseg.inference.images import read_image
from ovseg.inference.results import Failure, SegResult
from ovseg.vocab.vocabulary import Vocabulary


class LeftPredictor:
    """A predictor that gives the left half to the first class."""

    def set_vocabulary(self, classes, templates=None):
        self.vocabulary = Vocabulary.of(classes)

    def segment(self, sources, **options):
        for source in sources:
            try:
                image = read_image(source)
            except Exception as error:
                yield Failure(str(source), error)
                continue
            labels = np.full(image.shape[:2], -1, np.int32)
            labels[:, : image.shape[1] // 2] = 0
            scores = np.ones(labels.shape, np.float16)
            yield SegResult(labels, scores, self.vocabulary, source=str(source), image=image)


@pytest.fixture
def predictor(monkeypatch):
    monkeypatch.setattr(ovseg, "load", lambda name, **options: LeftPredictor(), raising=False)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(encoded("png"))
    return path
