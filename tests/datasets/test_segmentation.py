"""Data sets for mmseg: a user's own folder, EmojiScenes, CamVid, 16-bit labels in a pipeline."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("mmseg")

from emoji_fakes import fake_drawings

from ovseg.datasets.emoji import EmojiScenes, word_table
from ovseg.datasets.emoji_scenes import EmojiScenesDataset, coco_annotations, semantic_map, write_scenes
from ovseg.datasets.segmentation import FolderDataset, LoadLabels
from ovseg.evaluation.sets import emoji_set, open_set

GROUPS = ("base", "novel")


@pytest.fixture(scope="module")
def drawings():
    return fake_drawings()


def own_folder(root, suffix=".png"):
    for name in ("b/2.JPG", "a/1.jpeg"):
        image, mask = root / "images" / name, (root / "masks" / name).with_suffix(suffix)
        for path in (image, mask):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4)).save(image, format="JPEG")
        Image.fromarray(np.array([[0, 1, 1, 255]] * 3, np.uint8)).save(mask)
    (root / "classes.txt").write_text("road\nperson: man | woman\n")
    return root


def test_own_folder(tmp_path):
    data = open_set(str(own_folder(tmp_path)))
    assert data.classes == ("road", "person")
    assert data.vocabulary.words == ("road", "man", "woman")
    assert [data.label(i)[-4:] for i in range(2)] == ["jpeg", ".JPG"]
    assert data.truth(0)[0].tolist() == [0, 1, 1, -1]


def test_own_folder_names_what_is_missing(tmp_path):
    own_folder(tmp_path)
    (tmp_path / "masks/b/2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"2\.png"):
        FolderDataset(str(tmp_path))
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"classes\.txt is missing"):
        FolderDataset(str(tmp_path))


def test_words_that_do_not_fit_are_refused(tmp_path):
    from ovseg.vocab.vocabulary import Vocabulary

    own_folder(tmp_path)
    with pytest.raises(ValueError, match=r"3 classes are given, .* has 2"):
        open_set(str(tmp_path), vocabulary=Vocabulary.of(["a", "b", "c"]))
    with pytest.raises(ValueError, match="no class 'cat'"):
        open_set(str(tmp_path), novel=["cat"])
    assert open_set(str(tmp_path), novel=["person"]).groups == {"base": (0,), "novel": (1,)}


def test_pipeline_reads_sixteen_bits(tmp_path):
    Image.fromarray(np.array([[846, 255, 65535]], np.uint16)).save(tmp_path / "x.tif")
    info = {"seg_map_path": str(tmp_path / "x.tif"), "reduce_zero_label": False}
    found = LoadLabels(847, ignore_index=65535).transform(info)["gt_seg_map"]
    assert found.dtype == np.uint16
    assert found.tolist() == [[846, 255, 65535]]


def test_pipeline_needs_labels_of_data_sets_only():
    load = LoadLabels(3)
    assert load.transform({"img_path": "x.jpg"}) == {"img_path": "x.jpg"}
    with pytest.raises(
        ValueError, match=r"no labels for x\.jpg; give the data set's data_prefix seg_map_path"
    ):
        load.transform({"img_path": "x.jpg", "seg_fields": []})


def test_registered_for_anyones_config():
    from mmseg.registry import DATASETS, TRANSFORMS

    assert DATASETS.get("ovseg.FolderDataset") is FolderDataset
    assert TRANSFORMS.get("ovseg.LoadLabels") is LoadLabels


def test_emoji_scenes(drawings):
    scenes = EmojiScenes("test", GROUPS, length=3, seed=7, drawings=drawings)
    data = EmojiScenesDataset(groups=GROUPS, scenes=scenes)
    item = data[1]
    scene = scenes[1]
    assert (item["img"][..., ::-1] == scene.image).all()
    classes = data.metainfo["classes"]
    for number, word in enumerate(scene.words, start=1):
        inside = item["gt_seg_map"][scene.instances == number]
        assert {classes[k] for k in inside} <= {scenes.table.words[word].name}
    texture = item["gt_seg_map"][scene.instances == 0][0]
    assert classes[texture] == scenes.table.textures[scene.texture]


def test_emoji_textures_may_be_left_out(drawings):
    scene = EmojiScenes("test", GROUPS, length=1, drawings=drawings)[0]
    found = semantic_map(scene, word_table(), GROUPS, textures=False)
    assert (found[scene.instances == 0] == 255).all()


def test_emoji_evaluation_set(drawings):
    data = emoji_set("test", GROUPS, length=2, drawings=drawings)
    assert len(data.classes) == len(data.vocabulary) == sum(map(len, data.groups.values()))
    assert data.classes[data.groups["textures"][0]] == "grass"
    assert data.truth(0).shape == data.image(0).shape[:2]
    table = word_table()
    assert all(data.classes[i] in table.names("novel") for i in data.groups["novel"])


def test_coco_annotations(drawings):
    from pycocotools import mask as rle

    scenes = EmojiScenes("test", GROUPS, length=4, drawings=drawings)
    data = coco_annotations(list(scenes), GROUPS)
    names = {row["id"]: row["name"] for row in data["categories"]}
    for i, scene in enumerate(scenes):
        rows = [row for row in data["annotations"] if row["image_id"] == i + 1]
        shown = [n for n in range(1, len(scene.words) + 1) if (scene.instances == n).any()]
        assert len(rows) == len(shown)
        for row, number in zip(rows, shown):
            mask = rle.decode(row["segmentation"]).astype(bool)
            assert (mask == (scene.instances == number)).all()
            y, x = np.nonzero(mask)
            box = [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
            assert row["bbox"] == box
            assert names[row["category_id"]] == scenes.table.words[scene.words[number - 1]].name


def test_written_scenes_read_back(tmp_path, drawings):
    from pycocotools.coco import COCO

    scenes = EmojiScenes("test", GROUPS, length=2, drawings=drawings)
    write_scenes(tmp_path, scenes, GROUPS)
    data = open_set(str(tmp_path))
    assert (data.truth(1) == semantic_map(scenes[1], scenes.table, GROUPS)).all()
    coco = COCO(str(tmp_path / "instances.json"))
    assert len(coco.getImgIds()) == 2
    assert coco.annToMask(coco.loadAnns(coco.getAnnIds([1]))[0]).any()
