"""Label maps at their full depth."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ovseg.datasets.labels import LabelError, read_labels, truth_of


@pytest.mark.parametrize(("suffix", "kind"), [(".png", np.uint8), (".png", np.uint16), (".tif", np.uint16)])
def test_read_at_full_depth(tmp_path, suffix, kind):
    labels = np.array([[0, 1, np.iinfo(kind).max], [7, 200, 846 % np.iinfo(kind).max]], kind)
    Image.fromarray(labels).save(tmp_path / f"x{suffix}")
    assert (read_labels(tmp_path / f"x{suffix}") == labels).all()


def test_indexed_png_gives_numbers_not_colours(tmp_path):
    image = Image.fromarray(np.array([[0, 5], [255, 1]], np.uint8), "P")
    image.putpalette(list(range(256)) * 3)
    image.save(tmp_path / "x.png")
    assert read_labels(tmp_path / "x.png").tolist() == [[0, 5], [255, 1]]


def test_errors_name_the_file(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "colour.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for name in ("colour.png", "broken.png", "absent.png"):
        with pytest.raises(LabelError, match=name):
            read_labels(tmp_path / name)


def test_zero_may_be_left_out():
    labels = np.array([[0, 1, 150, 255]])
    assert truth_of(labels, 150, reduce_zero_label=True).tolist() == [[-1, 0, 149, -1]]
    assert truth_of(np.array([[0, 3, 255]]), 4).tolist() == [[0, 3, -1]]


def test_sixteen_bits():
    assert truth_of(np.array([[846, 255, 65535]]), 847, ignore_index=65535).tolist() == [[846, 255, -1]]


def test_subset_of_the_classes():
    assert truth_of(np.array([[0, 1, 2, 255]]), 2, label_map={0: 255, 1: 0, 2: 1}).tolist() == [
        [-1, 0, 1, -1]
    ]


def test_number_without_a_class_is_named():
    with pytest.raises(LabelError, match=r"a\.png holds 151,.* 150 classes"):
        truth_of(np.array([[151]]), 150, reduce_zero_label=True, source="a.png")


def test_as_mmsegs_loader(tmp_path):
    pytest.importorskip("mmseg")
    from mmseg.datasets.transforms import LoadAnnotations

    labels = np.random.default_rng(0).integers(0, 256, (9, 9)).astype(np.uint8)
    Image.fromarray(labels).save(tmp_path / "x.png")
    for reduce in (False, True):
        info = {"seg_map_path": str(tmp_path / "x.png"), "reduce_zero_label": reduce, "seg_fields": []}
        theirs = LoadAnnotations().transform(info)["gt_seg_map"].astype(int)
        ours = truth_of(read_labels(tmp_path / "x.png"), 256, reduce_zero_label=reduce)
        assert (np.where(ours < 0, 255, ours) == theirs).all()
