"""Conversions, on small files in the layout of each official download, read back through the data sets."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ovseg.datasets.benchmarks import BENCHMARKS, benchmark, find_root
from ovseg.datasets.prepare import (
    ade,
    ade_full,
    camvid,
    cityscapes,
    coco_stuff,
    coco_stuff10k,
    context,
    voc,
)
from ovseg.datasets.prepare.files import LayoutError, main

SIZE = (6, 8)


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path)


def picture(path):
    write(path, np.full((*SIZE, 3), 90, np.uint8))


def labels(*values, kind=np.uint8):
    """A map whose columns hold the values in turn."""
    return np.tile(np.resize(np.array(values), SIZE[1]), (SIZE[0], 1)).astype(kind)


def mat(path, **arrays):
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, arrays)


def truth(name, root, split=None):
    """Classes of the first image, read as the evaluation does it."""
    pytest.importorskip("mmseg")
    from ovseg.evaluation.sets import open_set

    data = open_set(name, root, split)
    return data, data.truth(0)


def voc_layout(root):
    folder = root / "VOCdevkit/VOC2012"
    for split in ("train", "val"):
        picture(folder / f"JPEGImages/{split}_1.jpg")
        write(folder / f"SegmentationClass/{split}_1.png", labels(0, 20, 255))
        (folder / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
        (folder / f"ImageSets/Segmentation/{split}.txt").write_text(f"{split}_1\n")


def test_voc(tmp_path):
    voc_layout(tmp_path)
    assert "train images: 1, published are 1464" in voc.prepare(tmp_path)[0]
    assert truth("voc21", tmp_path)[1][0, :3].tolist() == [0, 20, -1]
    assert truth("voc20", tmp_path)[1][0, :3].tolist() == [-1, 19, -1]


def test_voc_without_an_image(tmp_path):
    voc_layout(tmp_path)
    (tmp_path / "VOCdevkit/VOC2012/JPEGImages/val_1.jpg").unlink()
    with pytest.raises(LayoutError, match=r"val_1\.jpg is missing"):
        voc.prepare(tmp_path)


def test_context(tmp_path):
    folder = tmp_path / "VOCdevkit/VOC2010"
    for split in ("train", "val"):
        picture(folder / f"JPEGImages/{split}_1.jpg")
        mat(tmp_path / f"trainval/{split}_1.mat", LabelMap=labels(0, 1, 2, 458, 459, 460, kind=np.uint16))
        (folder / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
        (folder / f"ImageSets/Main/{split}.txt").write_text(f"{split}_1\nwithout_labels\n")
    context.prepare(tmp_path)
    data, found = truth("context60", tmp_path)
    assert found[0, :6].tolist() == [0, 0, 1, 59, 0, 0]  # 1 and 459 are rare
    assert (data.classes[1], data.classes[59]) == ("aeroplane", "wood")
    assert truth("context59", tmp_path)[1][0, :6].tolist() == [-1, -1, 0, 58, -1, -1]
    data, found = truth("context459", tmp_path)
    assert found[0, :6].tolist() == [-1, 0, 1, 457, 458, -1]
    assert [data.classes[k] for k in (1, 457)] == ["aeroplane", "wood"]


def test_numbers_of_the_frequent_classes_match_both_lists():
    """The 59 names stand at the 59 numbers of the long list: two sources that must agree."""
    from ovseg.vocab.vocabulary import Vocabulary

    every, frequent = (
        Vocabulary.of("context459.proxyclip").names,
        Vocabulary.of("context59.clip_dinoiser").names,
    )
    at = [every[number - 1] for number in context.FREQUENT]
    differing = [(a, b) for a, b in zip(at, frequent) if a.replace(" ", "") != b.replace(" ", "")]
    assert not differing


def test_ade(tmp_path):
    for split in ("training", "validation"):
        picture(tmp_path / f"images/{split}/a.jpg")
        write(tmp_path / f"annotations/{split}/a.png", labels(0, 1, 150))
    ade.prepare(tmp_path)
    assert truth("ade150", tmp_path)[1][0, :3].tolist() == [-1, 0, 149]


def test_ade_full(tmp_path):
    codes = labels(2978, 978, 0, kind=np.int64)  # wall, flower, nothing
    parts = np.stack([codes // 256 * 10, codes % 256, 0 * codes], axis=-1).astype(np.uint8)
    for split in ("training", "validation"):
        picture(tmp_path / f"images/ADE/{split}/urban/street/ADE_1.jpg")
        write(tmp_path / f"images/ADE/{split}/urban/street/ADE_1_seg.png", parts)
    ade_full.prepare(tmp_path)
    data, found = truth("ade847", tmp_path)
    assert found[0, :3].tolist() == [0, 73, -1]
    assert (data.classes[0], data.classes[73]) == ("wall", "flower")


def test_ade_full_shrinks_large_images(tmp_path):
    for split in ("training", "validation"):
        write(tmp_path / f"images/ADE/{split}/ADE_1.jpg", np.zeros((600, 900, 3), np.uint8))
        write(tmp_path / f"images/ADE/{split}/ADE_1_seg.png", np.zeros((600, 900, 3), np.uint8))
    ade_full.prepare(tmp_path)
    assert truth("ade847", tmp_path)[1].shape == (512, 768)


def test_coco_stuff(tmp_path):
    for split in ("train2017", "val2017"):
        picture(tmp_path / f"images/{split}/000000000139.jpg")
        stored = labels(0, 12, 89, 91, 181, 255)
        write(tmp_path / f"annotations/{split}/000000000139.png", stored)
    coco_stuff.prepare(tmp_path)
    data, found = truth("coco_stuff171", tmp_path)
    assert len(data) == 1
    assert found[0, :6].tolist() == [0, 11, 79, 80, 170, -1]
    assert [data.classes[k] for k in (0, 11, 79, 80)] == ["person", "stop sign", "toothbrush", "banner"]
    data, found = truth("coco_object", tmp_path)
    assert found[0, :6].tolist() == [1, 12, 80, 0, 0, 0]  # stuff and unlabelled are background
    assert [data.classes[k] for k in (1, 12, 80)] == ["person", "stop sign", "toothbrush"]


def test_labels_that_were_not_prepared_are_named(tmp_path):
    pytest.importorskip("mmseg")
    from ovseg.evaluation.sets import open_set

    picture(tmp_path / "images/val2017/1.jpg")
    write(tmp_path / "annotations/val2017/1.png", labels(3))
    with pytest.raises(FileNotFoundError, match=r"1_instanceTrainIds\.png.*prepare/coco_stuff\.py"):
        open_set("coco_object", tmp_path)


def test_coco_stuff_with_a_foreign_label(tmp_path):
    for split in ("train2017", "val2017"):
        picture(tmp_path / f"images/{split}/1.jpg")
        write(tmp_path / f"annotations/{split}/1.png", labels(11))
    with pytest.raises(LayoutError, match="label 11"):
        coco_stuff.prepare(tmp_path)


def test_coco_stuff10k(tmp_path):
    (tmp_path / "imageLists").mkdir()
    for split in ("train", "test"):
        picture(tmp_path / f"images/{split}_1.jpg")
        mat(tmp_path / f"annotations/{split}_1.mat", S=labels(0, 1, 13, 182))
        (tmp_path / f"imageLists/{split}.txt").write_text(f"{split}_1\n")
    coco_stuff10k.prepare(tmp_path)
    assert truth("coco_stuff10k", tmp_path)[1][0, :4].tolist() == [-1, 0, 11, 170]


def test_cityscapes(tmp_path):
    for split in ("train", "val"):
        stem = f"{split}/ulm/ulm_000000_000019"
        (tmp_path / f"leftImg8bit/{split}/ulm").mkdir(parents=True)
        write(tmp_path / f"leftImg8bit/{stem}_leftImg8bit.png", np.zeros((*SIZE, 3), np.uint8))
        write(tmp_path / f"gtFine/{stem}_gtFine_labelIds.png", labels(0, 7, 29, 33))
    cityscapes.prepare(tmp_path)
    assert truth("cityscapes", tmp_path)[1][0, :4].tolist() == [-1, 0, -1, 18]


def test_camvid(tmp_path):
    for split in ("train", "val", "test"):
        (tmp_path / split).mkdir()
        write(tmp_path / f"{split}/0001.png", np.zeros((*SIZE, 3), np.uint8))
        write(tmp_path / f"{split}annot/0001.png", labels(0, 10, 11))
    camvid.prepare(tmp_path)
    assert truth("camvid", tmp_path, "val")[1][0, :3].tolist() == [0, 10, -1]


def test_an_interrupted_conversion_goes_on(tmp_path):
    for split in ("train2017", "val2017"):
        for name in "12":
            picture(tmp_path / f"images/{split}/{name}.jpg")
            write(tmp_path / f"annotations/{split}/{name}.png", labels(3))
    second = tmp_path / "annotations/val2017/2.png"
    second.unlink()
    with pytest.raises(LayoutError):
        coco_stuff.prepare(tmp_path)
    done = tmp_path / "annotations/val2017/1_labelTrainIds.png"
    before = done.stat().st_mtime_ns
    write(second, labels(3))
    coco_stuff.prepare(tmp_path)
    assert done.stat().st_mtime_ns == before


def test_tool_says_what_is_missing(tmp_path, capsys):
    assert main(voc.prepare, [str(tmp_path)]) == 1
    assert "JPEGImages is missing" in capsys.readouterr().err


def test_root_may_be_the_folder_or_the_one_above(tmp_path):
    for split in ("training", "validation"):
        picture(tmp_path / f"ade/ADEChallengeData2016/images/{split}/a.jpg")
    row = benchmark("ade150")
    own = tmp_path / "ade/ADEChallengeData2016"
    assert find_root(row, own) == find_root(row, tmp_path) == own
    with pytest.raises(FileNotFoundError, match=r"prepare/ade\.py"):
        find_root(row, tmp_path / "elsewhere")


def test_every_benchmark_fits_its_word_list_and_class():
    pytest.importorskip("mmseg")
    from ovseg.evaluation.sets import dataset_class
    from ovseg.vocab.vocabulary import Vocabulary

    for row in BENCHMARKS.values():
        classes = dataset_class(row).METAINFO["classes"]
        if row.words not in (None, "voc20b"):
            assert len(Vocabulary.of(row.words)) == len(classes), row.name


def test_unknown_benchmark_names_near_ones():
    with pytest.raises(ValueError, match="ade150"):
        benchmark("ade15")
