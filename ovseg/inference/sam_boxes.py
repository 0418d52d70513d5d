"""Masks from boxes by SAM (Kirillov et al., Segment Anything, ICCV 2023)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from segment_anything.utils.transforms import ResizeLongestSide

from ovseg.inference.images import ImageSource, read_image
from ovseg.inference.results import DetResult

if TYPE_CHECKING:
    from ovseg.towers.sam import SamTower

__all__ = ["add_masks", "masks_from_boxes"]

_BOXES_AT_ONCE = 32


def add_masks(
    result: DetResult, tower: str | SamTower = "sam_vit_b", image: ImageSource | None = None
) -> DetResult:
    """The same detections with SAM's mask of each box.

    Args:
        result: Boxes; masks that it has are replaced.
        tower: Name of SAM's weights (``sam_vit_b``, ``sam_vit_l``, ``sam_vit_h``), or SAM.
        image: What was searched; by default the image that the result keeps.

    Raises:
        ValueError: There is no image, or it is of another size.
        WeightsUnavailableError: SAM's weights are not on this machine and cannot be fetched.
    """
    from ovseg.towers.auxiliary import auxiliary_tower

    pixels = result.image if image is None else read_image(image)
    if pixels is None or pixels.shape[:2] != result.size:
        raise ValueError("masks need the image that was searched; pass it, or detect with keep_image=True")
    sam: SamTower = auxiliary_tower(tower) if isinstance(tower, str) else tower  # type: ignore[assignment]
    return replace(result, masks=masks_from_boxes(sam, pixels, result.boxes))


@torch.inference_mode()
def masks_from_boxes(sam: SamTower, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """One mask for each box, as SAM's own predictor draws it with ``multimask_output=False``.

    Args:
        sam: SAM.
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) XYXY in pixels.

    Returns:
        (N, H, W) bool.
    """
    size = (image.shape[0], image.shape[1])
    masks = np.zeros((len(boxes), *size), bool)
    if not len(boxes):
        return masks
    encoding, decoder = sam.encode(image), sam.sam.mask_decoder
    embedding = encoding.embedding.float()
    prompts = torch.from_numpy(ResizeLongestSide(sam.side).apply_boxes(np.asarray(boxes, np.float32), size))
    for start in range(0, len(boxes), _BOXES_AT_ONCE):
        part = slice(start, start + _BOXES_AT_ONCE)
        sparse, dense = sam.sam.prompt_encoder(
            points=None, boxes=prompts[part].to(embedding.device), masks=None
        )
        logits, _ = decoder(
            image_embeddings=embedding,
            image_pe=sam.sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        full = sam.sam.postprocess_masks(logits, encoding.input_size, size)
        masks[part] = (full[:, 0] > sam.sam.mask_threshold).cpu().numpy()
    return masks
