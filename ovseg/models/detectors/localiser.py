"""A frozen RPN of another network: where RegionCLIP's boxes come from."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.registry import MODELS as MMDET
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor

from ovseg.regions.boxes import decode_boxes
from ovseg.regions.proposals import Proposals, select_proposals
from ovseg.registry import MODELS

__all__ = ["FrozenLocaliser"]

_UNIT = (1.0, 1.0, 1.0, 1.0)  # RPNs regress without weights


@MODELS.register_module()
class FrozenLocaliser(BaseModule):
    """Backbone, neck and RPN head of mmdet that only predict; they are never trained.

    mmdet's own RPN head returns probabilities alone, from which a logit beyond 17 cannot be recovered;
    RegionCLIP's scores need it.

    Args:
        backbone: Config of mmdet; None where it reads the maps of the recogniser, whose first part is fixed.
        rpn_head: Config of mmdet's ``RPNHead``.
        neck: Config of mmdet.
        before: Boxes of each level that enter NMS.
        threshold: IoU of NMS.
        after: Boxes that leave.
    """

    def __init__(
        self,
        backbone: dict[str, Any] | None,
        rpn_head: dict[str, Any],
        neck: dict[str, Any] | None = None,
        *,
        before: int = 6000,
        threshold: float = 0.9,
        after: int = 1000,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        self.backbone = None if backbone is None else MMDET.build(backbone)
        self.neck = None if neck is None else MMDET.build(neck)
        self.rpn_head = MMDET.build(rpn_head)
        self.before, self.threshold, self.after = before, threshold, after
        self.requires_grad_(False)
        self.eval()

    def init_weights(self) -> None:
        """Nothing: its weights come from a file, and mmengine calls this after they were read."""

    def train(self, mode: bool = True) -> FrozenLocaliser:
        """Stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def predict(self, batch: Tensor | tuple[Tensor, ...], sizes: list[tuple[int, int]]) -> list[InstanceData]:
        """Proposals of each image: ``bboxes``, ``scores`` and ``logits``, the best first.

        Args:
            batch: (B, 3, H, W), in the localiser's own normalisation; without a backbone, its maps.
            sizes: (H, W) of each image without its padding.
        """
        features = batch if self.backbone is None else self.backbone(batch)
        if self.neck is not None:
            features = self.neck(features)
        logits, deltas = self.rpn_head(features)
        grids = [level.shape[-2:] for level in logits]
        anchors = self.rpn_head.prior_generator.grid_priors(
            grids, dtype=logits[0].dtype, device=logits[0].device
        )
        return [
            self._select([level[i] for level in logits], [level[i] for level in deltas], anchors, size)
            for i, size in enumerate(sizes)
        ]

    def _select(
        self, logits: list[Tensor], deltas: list[Tensor], anchors: list[Tensor], size: tuple[int, int]
    ) -> InstanceData:
        """One image: (A, h, w) logits and (4A, h, w) deltas of each level."""
        levels = [
            Proposals(
                decode_boxes(anchor, delta.permute(1, 2, 0).reshape(-1, 4), _UNIT),
                logit.permute(1, 2, 0).flatten(),
            )
            for logit, delta, anchor in zip(logits, deltas, anchors)
        ]
        chosen = select_proposals(
            levels, size, before=self.before, threshold=self.threshold, after=self.after
        )
        return InstanceData(bboxes=chosen.boxes, scores=chosen.objectness, logits=chosen.logits)
