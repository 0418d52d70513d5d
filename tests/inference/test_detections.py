"""Detections as pictures and files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from ovseg.inference.render_boxes import draw_detections, place_tags
from ovseg.inference.results import DetResult
from ovseg.inference.writers import list_writers, writer
from ovseg.vocab.vocabulary import Vocabulary

WORDS = Vocabulary.of(["car", "person", "traffic light"])


def result(count=3, size=(120, 200), masks=False, seed=0) -> DetResult:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 0.7, (count, 2)) * size[::-1]
    boxes = np.concatenate([corner, corner + rng.uniform(0.05, 0.3, (count, 2)) * size[::-1]], axis=1)
    inside = np.zeros((count, *size), bool)
    for mask, (x1, y1, x2, y2) in zip(inside, boxes.astype(int)):
        mask[y1 + 2 : y2 - 1, x1 + 2 : x2 - 1] = True
    return DetResult(
        boxes.astype(np.float32), rng.uniform(0, 1, count).astype(np.float32), np.arange(count) % 3, WORDS, size,
        masks=inside if masks else None, image=np.full((*size, 3), 90, np.uint8),
    )  # fmt: skip


def test_fifty_tags_do_not_hide_each_other():
    found = result(50, (800, 1200), seed=1)
    boxes = [tuple(int(v) for v in box) for box in found.boxes]
    places = place_tags(boxes, [(90, 20)] * 50, (800, 1200))
    shown = [place for place in places if place is not None]
    assert len(shown) >= 45
    for i, (x1, y1, x2, y2) in enumerate(shown):
        assert x1 >= 0 and y1 >= 0 and x2 < 1200 and y2 < 800
        assert not any(x1 <= b[2] and b[0] <= x2 and y1 <= b[3] and b[1] <= y2 for b in shown[:i])


def test_a_tag_without_room_is_left_out_and_the_first_keeps_its_place():
    same = [(10, 10, 30, 30)] * 30
    places = place_tags(same, [(60, 20)] * 30, (60, 100))
    assert places[0] is not None and places[-1] is None


def test_a_tag_wider_than_the_picture_starts_at_its_edge():
    (place,) = place_tags([(5, 5, 9, 9)], [(300, 20)], (40, 100))
    assert place[0] == 0 and place[1] >= 0


def test_boxes_are_drawn_where_they_are():
    found = result(1, (600, 600))
    found.boxes[0] = [100, 200, 300, 400]
    picture = draw_detections(found.image, found, legend=False)
    assert picture.shape == (600, 600, 3)
    colour = WORDS.classes[0].colour
    for y, x in ((300, 100), (300, 299), (399, 200)):
        assert tuple(picture[y, x]) == colour
    assert (picture[220:390, 120:290] == 90).all()
    assert (picture[:150] == 90).all() and (picture[450:] == 90).all()


def test_masks_are_painted_and_small_images_enlarged_for_the_names():
    found = result(2, masks=True)
    assert draw_detections(found.image, found, legend=False).shape == (120, 200, 3)
    tall = draw_detections(found.image, found)
    assert tall.shape[1] >= 600 and tall.shape[0] > 360  # three times, and a legend below
    found.boxes[:] = [0, 0, 8, 8]
    found.masks[:] = False
    found.masks[0, 60:80, 100:150] = True
    picture = draw_detections(found.image, found, legend=False)
    assert (picture[60:80, 100:150] != 90).any(axis=2).all() and (picture[90:, :] == 90).all()


def test_nothing_found_is_the_image():
    found = result(0)
    assert (draw_detections(found.image, found, legend=False) == found.image).all()
    assert found.overlay().shape[1] >= 512


def test_wrong_image_and_no_image():
    found = result()
    with pytest.raises(ValueError, match="pass the image that was searched"):
        found.overlay(np.zeros((10, 10, 3), np.uint8))
    found.image = None
    with pytest.raises(ValueError, match="keep_image=True"):
        found.overlay()


def test_formats():
    assert list_writers("detections") == ("coco", "overlay", "yolo")
    assert "png" in list_writers()  # which holds no detections


def test_yolo_is_relative_centres_and_sizes(tmp_path):
    found = result(1)
    found.boxes[0], found.scores[0], found.labels[0] = [20, 30, 60, 90], 0.5, 2
    path = found.save(tmp_path / "a.txt")
    assert path.read_text() == "2 0.200000 0.500000 0.200000 0.500000 0.5000\n"
    assert (tmp_path / "classes.txt").read_text() == "car\nperson\ntraffic light\n"
    assert result(0).save(tmp_path / "b.txt").read_text() == ""


def test_coco_and_overlay_files(tmp_path):
    found = result(4, masks=True)
    document = json.loads(found.save(tmp_path / "a.coco.json").read_text())
    assert len(document["annotations"]) == 4 and document["info"]["ovseg"]["vocabulary"]["classes"]
    with Image.open(found.save(tmp_path / "a.png")) as picture:
        assert picture.size[0] >= 600
    with pytest.raises(ValueError, match="does not hold detections; use coco, overlay, yolo"):
        writer("png").write_any(found, tmp_path / "a.png")
    with pytest.raises(ValueError, match="names no format"):
        found.save(tmp_path / "a.npz")


def test_boxes_and_masks_come_back_from_coco(tmp_path):
    from pycocotools.coco import COCO

    found = result(12, masks=True, seed=3)
    file = COCO(found.save(tmp_path / "a.coco.json"))
    items = file.loadAnns(file.getAnnIds())
    names = [file.loadCats(item["category_id"])[0]["name"] for item in items]
    boxes = np.array([item["bbox"] for item in items])
    boxes[:, 2:] += boxes[:, :2]
    assert tuple(names) == found.names
    np.testing.assert_allclose(boxes, found.boxes, atol=0.01)
    np.testing.assert_allclose([item["score"] for item in items], found.scores, atol=1e-4)
    masks = np.stack([file.annToMask(item) for item in items]).astype(bool)
    np.testing.assert_array_equal(masks, found.masks)


def test_boxes_come_back_from_yolo(tmp_path):
    found = result(12, seed=4)
    rows = [line.split() for line in found.save(tmp_path / "a.txt").read_text().splitlines()]
    names = (tmp_path / "classes.txt").read_text().splitlines()
    assert tuple(names[int(row[0])] for row in rows) == found.names
    centre, size = (np.array([row[i : i + 2] for row in rows], float) for i in (1, 3))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1) * [200, 120, 200, 120]
    np.testing.assert_allclose(boxes, found.boxes, atol=1e-3)
    np.testing.assert_allclose([float(row[5]) for row in rows], found.scores, atol=1e-4)
