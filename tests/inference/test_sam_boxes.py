from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor

sys.path.insert(0, str(Path(__file__).parents[1] / "towers"))
from small_sam import small_sam

from ovseg.inference import sam_boxes
from ovseg.inference.results import DetResult
from ovseg.inference.sam_boxes import add_masks, masks_from_boxes
from ovseg.towers.auxiliary import auxiliary_info
from ovseg.towers.sam import SamTower
from ovseg.vocab.vocabulary import Vocabulary

BOXES = np.array([[2.0, 3, 20, 30], [10, 1, 35, 48], [0, 0, 36, 50]], np.float32)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (50, 36, 3), np.uint8)


@pytest.mark.parametrize("at_once", [1, 2, 32])
def test_masks_are_those_of_sams_own_predictor(image, at_once, monkeypatch):
    monkeypatch.setattr(sam_boxes, "_BOXES_AT_ONCE", at_once)
    sam = small_sam()
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    boxes = predictor.transform.apply_boxes_torch(torch.from_numpy(BOXES), image.shape[:2])
    logits, _, _ = predictor.predict_torch(None, None, boxes, multimask_output=False, return_logits=True)
    median = float(logits.median())  # random weights: else all or nothing may be inside
    sam.mask_threshold = median
    ours = masks_from_boxes(SamTower(sam, auxiliary_info("sam_vit_b")), image, BOXES)
    wanted = logits[:, 0].numpy() > median
    sure = np.abs(logits[:, 0].numpy() - median) > 1e-4
    assert ours.shape == (3, 50, 36) and 0.1 < wanted.mean() < 0.9
    assert (ours == wanted)[sure].all()


def test_detections_get_masks_and_keep_the_rest(image):
    sam = SamTower(small_sam(), auxiliary_info("sam_vit_b"))
    words = Vocabulary.of(["car"])
    found = DetResult(BOXES, np.ones(3, np.float32), np.zeros(3, np.int64), words, (50, 36), image=image)
    masked = add_masks(found, sam)
    assert masked.masks.shape == (3, 50, 36) and masked.boxes is found.boxes and found.masks is None
    assert masks_from_boxes(sam, image, BOXES[:0]).shape == (0, 50, 36)
    found.image = None
    with pytest.raises(ValueError, match="keep_image=True"):
        add_masks(found, sam)
    with pytest.raises(ValueError, match="the image that was searched"):
        add_masks(found, sam, image[:20])
