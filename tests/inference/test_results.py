from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from ovseg.inference.images import ImageError
from ovseg.inference.results import DetResult, Failure, SegResult, pixel_counts
from ovseg.vocab.vocabulary import Vocabulary

STREET = Vocabulary.of(["sky", "road", "traffic light", "car"])


@pytest.fixture
def result() -> SegResult:
    label_map = np.full((10, 20), 1, np.int32)
    label_map[:3] = 0
    label_map[8:, :5] = 3
    label_map[9, 15:] = -1
    return SegResult(label_map, np.zeros((10, 20), np.float16), STREET, "plain", "street.jpg")


@pytest.fixture
def detections() -> DetResult:
    masks = np.zeros((2, 10, 20), bool)
    masks[0, 2:4, 3:9] = True
    boxes = np.array([[3, 2, 9, 4], [0, 0, 5.5, 5]], np.float32)
    scores = np.array([0.9, 0.5], np.float32)
    return DetResult(boxes, scores, np.array([3, 1]), STREET, size=(10, 20), masks=masks, source="street.jpg")


def test_areas_are_fractions_of_the_image_with_the_unlabelled_apart(result: SegResult) -> None:
    assert result.size == (10, 20)
    assert result.area() == pytest.approx({"road": 125 / 200, "sky": 60 / 200, "car": 10 / 200})
    assert list(result.area()) == ["road", "sky", "car"]  # the largest first
    assert result.classes() == ("road", "sky", "car")
    assert result.unlabelled == pytest.approx(5 / 200)
    assert sum(result.area().values()) + result.unlabelled == pytest.approx(1)


def test_counts_over_many_strips_are_those_of_one() -> None:
    label_map = np.random.default_rng(0).integers(-1, 7, (300, 9000)).astype(np.int32)
    expected = [(label_map == label).sum() for label in (*range(9), -1)]
    assert pixel_counts(label_map, 9).tolist() == expected


def test_mask(result: SegResult) -> None:
    np.testing.assert_array_equal(result.mask("car"), result.label_map == 3)
    assert result.mask("traffic light").dtype == bool and not result.mask("traffic light").any()
    with pytest.raises(ValueError, match=r"no class 'Trafic lights'.*did you mean 'traffic light'"):
        result.mask("Trafic lights")
    with pytest.raises(ValueError, match="its classes are sky, road, traffic light, car"):
        result.mask("zebra")


def test_overlay_draws_on_the_kept_or_the_given_image(result: SegResult, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep_image=True"):
        result.overlay()
    black = np.zeros((10, 20, 3), np.uint8)
    given = result.overlay(black, legend=False)
    assert given.shape == (10, 20, 3) and given.dtype == np.uint8
    Image.fromarray(black).save(tmp_path / "black.png")
    np.testing.assert_array_equal(result.overlay(tmp_path / "black.png", legend=False), given)
    result.image = black
    np.testing.assert_array_equal(result.overlay(legend=False), given)
    assert result.overlay().shape[0] > 10
    with pytest.raises(ValueError, match="pass the image that was segmented"):
        result.overlay(black[:5])


def test_save_takes_the_format_from_the_name(result: SegResult, tmp_path: Path) -> None:
    result.image = np.zeros((10, 20, 3), np.uint8)
    for name, mode in {"a.png": "RGB", "a.JPG": "RGB", "a.labels.png": "P", "a.panoptic.png": "RGB"}.items():
        path = result.save(tmp_path / "new" / name)
        assert path == tmp_path / "new" / name
        assert Image.open(path).mode == mode
    assert Image.open(tmp_path / "new" / "a.panoptic.png").size == (20, 10)
    assert Image.open(tmp_path / "new" / "a.png").size != (20, 10)  # an overlay has its legend
    assert result.save(str(tmp_path / "a.npz")).is_file()
    assert result.save(tmp_path / "a.json").is_file()
    assert Image.open(result.save(tmp_path / "b.png", format="png")).mode == "P"


@pytest.mark.parametrize(
    ("name", "format", "message"),
    [
        ("a.gif", None, r"a\.gif.*format=.*coco"),
        ("a", None, "suffix names no format"),
        ("a.png", "pdf", "no format 'pdf'; there are coco"),
        ("a.png", "coco", r"\.json files"),
        ("a", "overlay", r"\.png or \.jpg"),
    ],
)
def test_save_to_a_name_of_no_format(
    result: SegResult, tmp_path: Path, name: str, format: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        result.save(tmp_path / name, format)
    assert not list(tmp_path.iterdir())


def test_segmentation_to_coco(result: SegResult) -> None:
    document = result.to_coco(image_id=7)
    assert document["images"] == [{"id": 7, "file_name": "street.jpg", "width": 20, "height": 10}]
    assert [c["name"] for c in document["categories"]] == list(STREET.names)
    assert [c["id"] for c in document["categories"]] == [1, 2, 3, 4]
    by_category = {a["category_id"]: a for a in document["annotations"]}
    assert set(by_category) == {1, 2, 4}
    for category, annotation in by_category.items():
        mask = result.label_map == category - 1
        np.testing.assert_array_equal(coco_mask.decode(annotation["segmentation"]), mask)
        reference = coco_mask.encode(np.asfortranarray(mask, np.uint8))
        assert annotation["segmentation"]["counts"] == reference["counts"].decode()
        assert annotation["area"] == mask.sum() and annotation["image_id"] == 7
    assert by_category[4]["bbox"] == [0, 8, 5, 2]
    ids = [a["id"] for n in (1, 2) for a in result.to_coco(n)["annotations"]]
    assert len(set(ids)) == len(ids)


def test_detection_to_coco(detections: DetResult) -> None:
    first, second = detections.to_coco()["annotations"]
    assert first["bbox"] == [3, 2, 6, 2] and first["category_id"] == 4 and first["area"] == 12
    assert first["score"] == pytest.approx(0.9)
    np.testing.assert_array_equal(coco_mask.decode(first["segmentation"]), detections.masks[0])
    detections.masks = None
    second = detections.to_coco()["annotations"][1]
    assert "segmentation" not in second and second["area"] == pytest.approx(27.5)


def test_detections_by_name(detections: DetResult) -> None:
    assert len(detections) == 2
    assert detections.names == ("car", "road")
    assert detections.classes() == ("road", "car")


def test_to_supervision_without_the_extra(result: SegResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match=r"pip install 'ovseg\[supervision\]'"):
        result.to_supervision()


def test_to_supervision_hands_over_masks_boxes_and_names(
    result: SegResult, detections: DetResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=lambda **fields: fields))
    fields = result.to_supervision()
    assert fields["class_id"].tolist() == [1, 0, 3] and fields["confidence"] is None
    assert fields["data"]["class_name"].tolist() == ["road", "sky", "car"]
    assert fields["xyxy"].tolist() == [[0, 3, 20, 10], [0, 0, 20, 3], [0, 8, 5, 10]]
    np.testing.assert_array_equal(fields["mask"][2], result.mask("car"))
    result.label_map[:] = -1
    assert result.to_supervision()["xyxy"].shape == (0, 4)
    assert result.to_supervision()["mask"].shape == (0, 10, 20)
    assert detections.to_supervision()["data"]["class_name"].tolist() == ["car", "road"]


def test_to_supervision_for_real(result: SegResult, detections: DetResult) -> None:
    supervision = pytest.importorskip("supervision")
    converted = result.to_supervision()
    assert isinstance(converted, supervision.Detections)
    assert converted.area.tolist() == [125, 60, 10]
    assert len(detections.to_supervision()) == 2


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ImageError("a.jpg is empty (0 bytes);\n copy it again"), "a.jpg is empty (0 bytes); copy it again"),
        (ValueError("too many words; use fewer"), "a.jpg: too many words; use fewer"),
        (OSError(errno.EIO, "Input/output error"), "a.jpg: [Errno 5] Input/output error"),
        (KeyError("x"), "a.jpg: KeyError: 'x'; rerun with --debug to see where"),
        (RuntimeError(), "a.jpg: RuntimeError; rerun with --debug to see where"),
        (
            RuntimeError("CUDA out of memory. Tried ..."),
            "a.jpg: not enough memory for this image; scale it down or use a smaller batch_size",
        ),
        (MemoryError(), "a.jpg: not enough memory for this image; scale it down or use a smaller batch_size"),
    ],
)
def test_failure_is_falsy_and_says_one_line(error: Exception, message: str) -> None:
    failure = Failure("a.jpg", error)
    assert not failure
    assert failure.message == message


def test_importing_results_is_light() -> None:
    heavy = ["torch", "pycocotools", "matplotlib", "PIL", "scipy", "cv2", "supervision"]
    code = (
        "import sys, ovseg.inference.results, ovseg.inference.writers as w; w.list_writers();"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
