"""Prompted masks against segment-anything's own predictor, on random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from segment_anything import SamPredictor
from small_sam import small_sam

from ovseg.towers.auxiliary import auxiliary_info
from ovseg.towers.sam import SamTower
from ovseg.towers.sam_masks import SamMasks

PICTURE, OUTPUT, FRAME = (48, 80), (45, 77), (22, 38)


@pytest.mark.parametrize("norm", ["channels", "rows"])
def test_masks_equal_those_of_the_predictor(norm):
    sam = small_sam()
    picture = np.random.default_rng(0).integers(0, 256, (*PICTURE, 3), np.uint8)
    predictor = SamPredictor(sam)
    predictor.set_image(picture)
    boxes = torch.tensor([[2.0, 3, 10, 12], [0, 0, 37, 21]])
    points = torch.tensor([[5.0, 6], [30, 20]])
    weights = torch.rand(FRAME)

    tower = SamTower(sam, auxiliary_info("sam_vit_b"))
    masks = SamMasks(tower, lambda: tower.encode(picture), PICTURE, OUTPUT)
    prompt = masks.prompt(weights)
    assert prompt.shape == (16, 16) and (prompt[10:] == 0).all()
    logits, quality = masks(boxes, points, FRAME, prompt, norm)

    transform = predictor.transform
    theirs, expected, _ = predictor.predict_torch(
        transform.apply_coords_torch(points[:, None], FRAME),
        torch.ones(2, 1),
        transform.apply_boxes_torch(boxes, FRAME),
        prompt[None, None] if norm == "channels" else prompt[None],
        multimask_output=False,
        return_logits=True,
    )
    resized = F.interpolate(theirs, OUTPUT, mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(quality, expected[:, 0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits, resized, atol=1e-3, rtol=1e-4)


def test_the_image_is_encoded_when_the_first_mask_is_asked_for():
    tower = SamTower(small_sam(), auxiliary_info("sam_vit_b"))
    calls = []

    def encode():
        calls.append(1)
        return tower.encode(np.zeros((*PICTURE, 3), np.uint8))

    masks = SamMasks(tower, encode, PICTURE, PICTURE)
    assert not calls
    for _ in range(2):
        masks(torch.tensor([[1.0, 1, 9, 9]]), torch.tensor([[4.0, 4]]), FRAME, torch.zeros(16, 16))
    assert calls == [1]
