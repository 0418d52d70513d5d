from __future__ import annotations

import numpy as np
import pytest
import torch

import ovseg
from ovseg.inference.explain import draw_explanation, explain


def test_the_identity_attends_to_itself(tiny_clip, photo):
    found = explain(ovseg.build("maskclip", tiny_clip), photo, 30, 50)
    row, column = found.at
    h, w = found.weights.shape
    assert (row, column) == (50 * h // 70, 30 * w // 101)
    assert found.kind == "attention"
    expected = np.zeros((h, w))
    expected[row, column] = 1
    np.testing.assert_array_equal(found.weights, expected)


def test_weights_are_those_of_the_softmax(tiny_clip, photo):
    predictor = ovseg.build("clip", tiny_clip)
    found = explain(predictor, photo, 0, 0)
    view = next(predictor._view(photo, whole=True).batches())
    with torch.inference_mode():
        features = predictor.model.clip.visual.forward_dense(
            view, _readout(predictor, taps=((-1, "scores"),))
        )
        scores = features.taps[(-1, "scores")].softmax(dim=-1).mean(dim=1)[0, 1, 1:]
    np.testing.assert_allclose(found.weights.ravel(), scores.numpy(), atol=1e-5)


def _readout(predictor, **changes):
    from dataclasses import replace

    return replace(predictor.model.readout, **changes)


def test_weights_that_depend_on_values_are_not_shown_as_such(tiny_clip, photo):
    found = explain(ovseg.build("maskclip", tiny_clip, affinity="value_value"), photo, 30, 50)
    assert found.kind == "similarity"
    assert found.weights[found.at] == pytest.approx(1, abs=1e-5) and found.weights.max() < 1.0001


def test_the_model_is_left_as_it_was(tiny_clip, photo):
    predictor = ovseg.build("sclip", tiny_clip)
    before = predictor.model.readout
    explain(predictor, photo, 1, 1)
    assert predictor.model.readout is before


def test_drawing_frames_the_place(tiny_clip, photo):
    found = explain(ovseg.build("maskclip", tiny_clip), photo, 100, 69)
    picture = draw_explanation(photo, found)
    assert (
        picture.shape == photo.shape and (picture[69 - 5 :, 100 - 5 :] == (64, 255, 128)).all(axis=-1).any()
    )


@pytest.mark.parametrize("place", [(101, 0), (0, 70), (-1, 0)])
def test_outside(tiny_clip, photo, place):
    with pytest.raises(ValueError, match="outside the image, which has 101 x 70"):
        explain(ovseg.build("clip", tiny_clip), photo, *place)
