"""Large images with small things."""

from __future__ import annotations

import numpy as np
import pytest

import ovseg
from ovseg.benchmark.harness import peak_memory
from ovseg.benchmark.large import prepare
from ovseg.inference.protocol import Protocol, Resize


def test_sizes_and_windows():
    protocol = Protocol("p", Resize(448, 2048)).detailed(4, 16)
    assert protocol.resize.size(9000, 12000, 16) == (1792, 2389)
    assert (protocol.crop, protocol.stride) == (448, 224)
    assert protocol.resize.size(600, 800, 16) == (600, 800), "no more pixels than the image has"
    assert protocol.resize.size(100, 200, 16) == (448, 896), "and no fewer than without"
    own = Protocol("p", Resize(336), crop=224, stride=112).detailed(2, 16)
    assert (own.crop, own.stride) == (224, 112)


def test_detail_one_is_the_protocol():
    protocol = Protocol("p", Resize(448))
    assert protocol.detailed(1, 16) is protocol


@pytest.mark.parametrize("detail", [0.5, 0, -1, float("nan"), float("inf")])
def test_wrong_detail_shows_before_the_first_image(tiny_clip, photo, detail):
    with pytest.raises(ValueError, match="detail must be 1 or more"):
        ovseg.build("maskclip", tiny_clip).segment(iter([photo]), ["a"], detail=detail)


def test_a_protocol_of_one_size_takes_no_detail():
    with pytest.raises(ValueError, match="one size"):
        Protocol("p", Resize(224, keep_ratio=False)).detailed(2, 16)


def test_where_one_window_holds_all_it_is_one_pass(tiny_clip, photo):
    """An image that is no larger than a window of the protocol: the same numbers either way."""
    square = np.ascontiguousarray(photo[:64, :64])
    predictor = ovseg.build("maskclip", tiny_clip)
    one = predictor.segment(square, ["cat", "dog"], background="none")
    tiled = predictor.segment(square, ["cat", "dog"], background="none", detail=3)
    np.testing.assert_array_equal(one.label_map, tiled.label_map)
    np.testing.assert_allclose(one.scores.astype(float), tiled.scores.astype(float), atol=1e-3)


def test_a_large_image_is_seen_in_windows(tiny_clip, photo):
    large = photo.repeat(12, axis=0).repeat(12, axis=1)  # 840 x 1212
    predictor = ovseg.build("maskclip", tiny_clip)
    view = predictor._view(large, detail=1.8)
    assert view.image.shape[1] == 800 and len(view.grid) > 6 and view.grid.taper
    assert predictor.segment(large, ["cat", "dog"], detail=1.8).size == large.shape[:2]


@pytest.mark.slow
def test_memory_of_a_very_large_image():
    """12000 x 9000: the call adds to what the process and the image (0.3 GB) take anyway; 3 GB in all."""
    assert peak_memory(prepare, height=9000, width=12000, detail=4.0) < 2.0e9
