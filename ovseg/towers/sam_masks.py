"""Masks that SAM draws around prompts (Kirillov et al., Segment Anything, ICCV 2023)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

from ovseg.towers.sam import SamEncoding, SamTower

__all__ = ["SamMasks"]


class SamMasks:
    """SAM's mask decoder on one image.

    Args:
        tower: SAM.
        encode: Gives the image's encoding; called when the first mask is asked for.
        picture_size: (H, W) in pixels of the encoded image.
        output_size: (H', W') in pixels of the masks.
    """

    def __init__(
        self,
        tower: SamTower,
        encode: Callable[[], SamEncoding],
        picture_size: tuple[int, int],
        output_size: tuple[int, int],
    ) -> None:
        self.tower, self.output_size = tower, output_size
        self._encode, self._picture_size = encode, picture_size
        self._encoding: SamEncoding | None = None

    def prompt(self, weights: Tensor) -> Tensor:
        """A map (h, w) of the whole image as a mask prompt (S, S), to be scaled by the caller."""
        side = self.tower.sam.prompt_encoder.mask_input_size[0]
        size = ResizeLongestSide.get_preprocess_shape(*self.output_size, side)
        resized = F.interpolate(weights[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        return F.pad(resized, (0, side - size[1], 0, side - size[0]))

    @torch.no_grad()
    def __call__(
        self,
        boxes: Tensor,
        points: Tensor,
        frame: tuple[int, int],
        prompt: Tensor,
        prompt_norm: Literal["channels", "rows"] = "channels",
    ) -> tuple[Tensor, Tensor]:
        """A mask for each prompt.

        Args:
            boxes: (n, 4) XYXY in pixels of the frame.
            points: (n, 2) XY inside the object.
            frame: (h, w) in pixels: the whole image as the boxes see it.
            prompt: (S, S) logits, the same for all; see ``prompt``.
            prompt_norm: See ``SamRefine``.

        Returns:
            Logits (n, H', W'), and the quality (n,) that SAM expects of them: an IoU.
        """
        if self._encoding is None:
            self._encoding = self._encode()
        sam = self.tower.sam
        size = ResizeLongestSide.get_preprocess_shape(*frame, self.tower.side)
        scale = boxes.new_tensor([size[1] / frame[1], size[0] / frame[0]], dtype=torch.float32)
        coordinates = (points * scale)[:, None]
        sparse, dense = sam.prompt_encoder(
            points=(coordinates, torch.ones_like(coordinates[..., 0])),
            boxes=boxes * scale.repeat(2),
            masks=(prompt[None, None] if prompt_norm == "channels" else prompt[None]).float(),
        )
        logits, quality = sam.mask_decoder(
            image_embeddings=self._encoding.embedding.float(),
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        masks = sam.postprocess_masks(logits, self._encoding.input_size, self._picture_size)
        if self._picture_size != self.output_size:
            masks = F.interpolate(masks, self.output_size, mode="bilinear", align_corners=False)
        return masks[:, 0], quality[:, 0]
