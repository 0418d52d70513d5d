"""Data sets of boxes, on small files in the official layouts, and detectors on them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from emoji_fakes import fake_drawings
from PIL import Image

import ovseg
from ovseg.evaluation.box_protocols import box_protocol
from ovseg.evaluation.box_sets import emoji_boxes, is_box_set, open_box_set
from ovseg.evaluation.detections import Found, evaluate_detections
from ovseg.evaluation.ground_truth import GroundTruth, parse_ground_truth, read_annotations
from ovseg.evaluation.region_detector import (
    RegionDetector,
    proposals_by_name,
    read_box_file,
    segments_detector,
)
from ovseg.evaluation.report import write_report
from ovseg.evaluation.report_boxes import boxes_to_markdown, report_boxes
from ovseg.inference.protocol import Protocol, Resize
from ovseg.inference.steps import Softmax
from ovseg.vocab.shipped import read_list
from ovseg.vocab.vocabulary import Vocabulary

COCO = read_list("coco_ov65")["classes"]
LVIS = read_list("lvis_v1.regionclip")["classes"]


def write_image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)).save(path)


def box(number, image, category, bbox, **more):
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, "area": bbox[2] * bbox[3], **more}  # fmt: skip


@pytest.fixture
def coco(tmp_path):
    """``annotations/instances_val2017.json``: three images, the third without any of the 65 classes."""
    document = {
        "images": [{"id": 10 + i, "file_name": f"{i:012d}.jpg", "height": 48, "width": 64} for i in range(3)],
        "categories": [{"id": e["coco_id"], "name": e["name"]} for e in COCO]
        + [{"id": 10, "name": "traffic light"}],
        "annotations": [
            box(1, 10, 1, [1, 2, 20, 30], iscrowd=0),
            box(2, 10, 17, [30, 2, 20, 30], iscrowd=0),  # a cat: novel
            box(3, 11, 1, [0, 0, 60, 40], iscrowd=1),
            box(4, 11, 3, [5, 5, 20, 20], iscrowd=0),
            box(5, 12, 10, [5, 5, 20, 20], iscrowd=0),
        ],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(document))
    for i in range(3):
        write_image(tmp_path / f"val2017/{i:012d}.jpg", i)
    return tmp_path


@pytest.fixture
def lvis(tmp_path):
    """``annotations/lvis_v1_val.json``: a rare and a frequent class, images in two folders of COCO."""
    rare = next(e for e in LVIS if e["frequency"] == "r")
    frequent = next(e for e in LVIS if e["frequency"] == "f")
    urls = ["http://images.cocodataset.org/val2017/a.jpg", "http://images.cocodataset.org/train2017/b.jpg"]
    document = {
        "images": [
            {"id": i, "coco_url": url, "height": 48, "width": 64, "neg_category_ids": [7],
             "not_exhaustive_category_ids": [frequent["lvis_id"]] if i else []}
            for i, url in enumerate(urls)
        ],
        "categories": [
            {"id": e["lvis_id"], "name": e["name"], "frequency": e["frequency"], "image_count": 1} for e in LVIS
        ],
        "annotations": [
            box(1, 0, rare["lvis_id"], [1, 2, 20, 30]),
            box(2, 1, frequent["lvis_id"], [5, 5, 30, 30]),
        ],
    }  # fmt: skip
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/lvis_v1_val.json").write_text(json.dumps(document))
    write_image(tmp_path / "val2017/a.jpg")
    write_image(tmp_path / "train2017/b.jpg")
    return tmp_path


def perfect(data, spoil=()):
    """A detector that knows the truth; boxes of the labels ``spoil`` get the next label."""

    def detect(image, truth):
        labels = np.array([k + 1 if k in spoil else k for k in truth.labels.tolist()], int)
        return Found(truth.boxes, np.full(len(labels), 0.5, np.float32), labels)

    return detect


def test_ov_coco(coco):
    data = open_box_set("ov_coco", coco)
    assert (len(data), len(data.vocabulary), data.limit) == (2, 65, 100)
    assert [len(data.groups[name]) for name in ("base", "novel")] == [48, 17]
    first, second = data.truths
    assert first.boxes.tolist() == [[1, 2, 21, 32], [30, 2, 50, 32]]
    assert [data.vocabulary.names[k] for k in first.labels] == ["person", "cat"]
    assert second.crowds.tolist() == [[0, 0, 60, 40]] and len(second.boxes) == 1
    found = evaluate_detections(perfect(data), data)
    assert found.precision.mean()["ap50"] == pytest.approx(1)
    assert found.precision.mean(data.groups["novel"])["ap50"] == pytest.approx(1)
    spoilt = evaluate_detections(perfect(data, spoil=data.groups["novel"]), data)
    assert spoilt.precision.mean(data.groups["novel"])["ap50"] == 0
    assert spoilt.precision.mean(data.groups["base"])["ap50"] == pytest.approx(1)
    assert len(open_box_set("ov_coco", coco.parent / coco.name, "val").truths) == 2


def test_an_empty_result_set_is_zero(coco):
    data = open_box_set("ov_coco", coco)
    nothing = Found(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    summary = report_boxes(evaluate_detections(lambda image, truth: nothing, data), data)
    assert [summary["groups"][name]["ap50"] for name in ("all", "base", "novel")] == [0, 0, 0]
    assert summary["detections"] == 0 and "| all | 0.00 | 0.00 |" in boxes_to_markdown(summary)


def test_ov_lvis(lvis):
    data = open_box_set("ov_lvis", lvis)
    assert (len(data), len(data.vocabulary), data.limit) == (2, 1203, 300)
    sizes = {name: len(group) for name, group in data.groups.items()}
    assert sizes == {"base": 866, "novel": 337, "rare": 337, "common": 461, "frequent": 405}
    assert 6 in data.truths[0].federated.searched  # the id is 7
    found = evaluate_detections(perfect(data), data)
    assert found.failures == []  # images are found in both folders
    assert found.precision.mean(data.groups["rare"])["ap"] == pytest.approx(1)
    assert np.isnan(found.precision.mean(data.groups["common"])["ap"])


def test_scenes_of_emoji():
    data = emoji_boxes(length=6, size=128, drawings=fake_drawings())
    assert len(data) == 6 and set(data.groups) == {"base", "novel", "unknown"}
    assert sum(map(len, data.groups.values())) == len(data.vocabulary)
    found = evaluate_detections(perfect(data), data)
    assert not found.failures and found.precision.mean()["ap"] == pytest.approx(1)
    base_only = emoji_boxes("val", ("base",), length=2, size=128, drawings=fake_drawings())
    assert set(base_only.groups) == {"base"} and base_only.split == "val"
    with pytest.raises(ValueError, match="no split 'dev'"):
        open_box_set("emoji_boxes", split="dev")


def test_a_file_of_ones_own(coco):
    path = coco / "mine.json"
    document = json.loads((coco / "annotations/instances_val2017.json").read_text())
    path.write_text(json.dumps(document))
    (coco / "val2017").rename(coco / "images")
    assert is_box_set(str(path)) and not is_box_set("ade150")
    data = open_box_set(str(path), novel=["cat"])
    assert (data.name, len(data), len(data.vocabulary)) == ("mine", 3, 66)
    assert [data.vocabulary.names[k] for k in data.groups["novel"]] == ["cat"]
    assert not evaluate_detections(perfect(data), data).failures
    with pytest.raises(ValueError, match="no class 'unicorn'"):
        open_box_set(str(path), novel=["unicorn"])
    with pytest.raises(ValueError, match=r"2 classes are given, .* has 66"):
        open_box_set(str(path), vocabulary=Vocabulary.of(["a", "b"]))


@pytest.mark.parametrize(("name", "cure"), [("ov_coco", "COCO 2017's"), ("ov_lvis", "LVIS v1's")])
def test_missing_files_are_named(tmp_path, name, cure):
    with pytest.raises(FileNotFoundError, match=cure):
        open_box_set(name, tmp_path)


def test_wrong_annotations(tmp_path):
    path = tmp_path / "instances.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match="has not COCO's layout"):
        read_annotations(path)
    with pytest.raises(ValueError, match="no category cat"):
        next(parse_ground_truth({"images": [], "annotations": [], "categories": []}, ["cat"]))


def test_boxes_without_area_are_left_out():
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}],
        "categories": [{"id": 3, "name": "car"}],
        "annotations": [box(1, 1, 3, [5, 5, 0, 5]), box(2, 1, 3, [5, 5, 5, 5])],
    }
    (found,) = parse_ground_truth(document, ["car"])
    assert found.size == (40, 60) and found.boxes.tolist() == [[5, 5, 10, 10]]


def test_unreadable_images_are_left_out_and_tried_again(coco, tmp_path):
    data, folder = open_box_set("ov_coco", coco), tmp_path / "out"
    good = (coco / "val2017/000000000000.jpg").read_bytes()
    (coco / "val2017/000000000000.jpg").write_bytes(b"broken")
    seen = []

    def detect(image, truth):
        seen.append(truth.image_id)
        return perfect(data)(image, truth)

    first = evaluate_detections(detect, data, settings={"model": "x"}, folder=folder)
    assert [record.name for record in first.failures] == ["000000000000.jpg"] and seen == [11]
    assert np.isnan(first.precision.mean(data.groups["novel"])["ap50"])  # the cat was in that image
    (coco / "val2017/000000000000.jpg").write_bytes(good)
    again = evaluate_detections(detect, data, settings={"model": "x"}, folder=folder)
    assert not again.failures and seen == [11, 10]
    assert again.precision.mean(data.groups["novel"])["ap50"] == pytest.approx(1)
    with pytest.raises(ValueError, match="model was 'x', is 'y'"):
        evaluate_detections(detect, data, settings={"model": "y"}, folder=folder)


def test_an_image_of_another_size_is_left_out(coco):
    data = open_box_set("ov_coco", coco)
    Image.new("RGB", (30, 30)).save(coco / "val2017/000000000001.jpg")
    (failure,) = evaluate_detections(perfect(data), data).failures
    assert "do not belong together" in failure.error


def test_resumed_figures_are_those_of_one_run(coco, tmp_path):
    data, rng = open_box_set("ov_coco", coco), np.random.default_rng(0)
    found = {
        t.image_id: Found(
            np.sort(rng.uniform(0, 48, (20, 2, 2)), axis=1).reshape(20, 4).astype(np.float32),
            rng.random(20).astype(np.float32),
            rng.integers(0, 6, 20),
            np.arange(len(t.labels)),
        )
        for t in data.truths
    }
    whole = evaluate_detections(lambda image, truth: found[truth.image_id], data, folder=tmp_path / "a")
    resumed = evaluate_detections(lambda image, truth: 1 / 0, data, folder=tmp_path / "a")
    for one, two in zip(whole.records, resumed.records):
        for name in ("boxes", "scores", "labels", "ranks"):
            np.testing.assert_array_equal(getattr(one.found, name), getattr(two.found, name))
    assert whole.top_k.compute() == resumed.top_k.compute()


class Namer:
    """Stands for a predictor whose probability of class k in box i is known."""

    def __init__(self, probabilities):
        self.probabilities = np.asarray(probabilities, np.float32)

    def regions(self, image, vocabulary, proposals):
        self.asked = proposals
        return proposals.boxes.numpy() + 1, self.probabilities[: len(proposals)]  # a regressor moves them


WORDS = Vocabulary.of(["person", "cat", "car"])


def test_true_boxes_are_named(coco):
    data = open_box_set("ov_coco", coco)
    truth = data.truths[0]
    detector = RegionDetector(Namer([[0.6, 0.3, 0.1], [0.5, 0.2, 0.3]]), WORDS)
    found = detector(
        np.zeros((48, 64, 3), np.uint8), GroundTruth("a", (48, 64), truth.boxes, np.array([0, 1]))
    )
    assert found.ranks.tolist() == [0, 2]
    assert len(found.boxes) == 6 and found.scores[0] == pytest.approx(0.6)
    assert {tuple(b) for b in found.boxes.tolist()} == {tuple(b) for b in truth.boxes.tolist()}


def test_proposals_from_a_file_with_their_score(coco, tmp_path):
    path = tmp_path / "boxes.json"
    rows = [{"image_id": 10, "category_id": 1, "bbox": [1, 2, 20, 30], "score": 0.25}]
    path.write_text(json.dumps(rows))
    assert read_box_file(path)[10].boxes.tolist() == [[1, 2, 21, 32]]
    data, image, namer = (
        open_box_set("ov_coco", coco),
        np.zeros((48, 64, 3), np.uint8),
        Namer([[0.64, 0.3, 0.0]]),
    )
    detector = RegionDetector(namer, WORDS, proposals_by_name(str(path)))
    found = detector(image, data.truths[0])
    assert found.ranks is None and found.boxes[0].tolist() == [2, 3, 22, 33]
    assert namer.asked.objectness.tolist() == pytest.approx([0.25])  # the predictor takes it into the score
    assert len(detector(image, data.truths[1]).boxes) == 0  # no boxes of this image
    raw = RegionDetector(namer, WORDS, proposals_by_name(str(path)), "raw_logit")
    assert len(raw(image, data.truths[0]).boxes) == 0  # the logit is negative
    rows[0]["score"] = 1 / (1 + np.exp(-2.25))
    path.write_text(json.dumps(rows))
    raw = RegionDetector(namer, WORDS, proposals_by_name(str(path)), "raw_logit")
    assert raw(image, data.truths[0]).scores[0] == pytest.approx((0.64 * 2.25) ** 0.5, rel=1e-5)
    assert namer.asked.logits is None
    path.write_text("{}{")
    with pytest.raises(ValueError, match="no list of image_id, bbox and score"):
        proposals_by_name(str(path))
    with pytest.raises(ValueError, match="no proposals 'nowhere'"):
        proposals_by_name("nowhere")


def test_a_predictor_on_all_sources(coco, tiny_clip, tmp_path):
    data = open_box_set("ov_coco", coco)
    protocol = Protocol("test", Resize(64), templates="imagenet7", steps=(Softmax(),), background="none")
    predictor = ovseg.build("maskclip", tiny_clip, protocol=protocol)
    few = Vocabulary.of(["person", "cat", "car"])
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    truth = data.truths[0]
    given = RegionDetector(predictor, few)
    scores = predictor.classify(image, truth.boxes, few)
    truth = GroundTruth("a", (48, 64), truth.boxes, np.array([0, 1]))
    assert given(image, truth).scores[0] == pytest.approx(scores.max())
    grid = RegionDetector(predictor, few, proposals_by_name("grid"))(image, truth)
    assert 0 < len(grid.boxes) <= 100 and grid.boxes.max() <= 64
    found = segments_detector(predictor, few)(image, truth)
    assert found.boxes.shape[1] == 4


def test_published_figures_need_their_proposals_and_rules(coco):
    data = open_box_set("ov_coco", coco)
    tuned = box_protocol("region_clip_rn50.ov_coco", data)
    assert tuned.selection.soft_sigma == 0.5
    assert tuned.published("rpn_coco_48")["novel"] == 31.4 and not tuned.published("truth")
    assert not box_protocol("region_clip_rn50.ov_coco", data, "raw_logit").published("rpn_coco_48")
    plain = box_protocol("region_clip_rn50.openai", data)
    assert (plain.selection.soft_sigma, plain.selection.limit, plain.objectness) == (None, 100, "sigmoid")
    assert not plain.published("rpn_coco_48")


def test_report(coco, tmp_path):
    data = open_box_set("ov_coco", coco)
    detector = RegionDetector(Namer(np.eye(65)[[0, 0]]), data.vocabulary)
    found = evaluate_detections(detector, data, settings={"model": "namer"})
    summary = report_boxes(found, data, paper={"novel": 31.4})
    assert summary["top_k"]["all"]["top1_micro"] == pytest.approx(100 / 3, abs=1e-3)
    assert summary["top_k"]["novel"]["top1_micro"] == 0
    assert summary["boxes"] == 3 and summary["images"] == 2
    paths = write_report(tmp_path / "report", summary, boxes_to_markdown)
    assert json.loads(paths[0].read_text())["paper"] == {"novel": 31.4}
    text = paths[1].read_text()
    assert text.startswith("# namer on ov_coco (val)") and "| novel | 0.00 | 31.40 | 0.00 |" in text
    assert "| person |" in text and "top1, mean of classes" in text
