"""The box head whose classes are words."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from torch import Tensor

from ovseg.regions.classify import class_rows, region_logits
from ovseg.registry import MODELS
from ovseg.vocab.text_bank import TextBank

__all__ = ["CosineBBoxHead"]


@MODELS.register_module()
class CosineBBoxHead(BBoxHead):
    """Cosine similarity with text rows and a zero background, and one linear box regressor for all classes.

    Args:
        in_channels: Dimension of the joint space.
        num_classes: K, in training.
        scale: Of the cosine: one over the temperature (RegionCLIP: 0.01).
        **kwargs: Of mmdet's ``BBoxHead``.

    Attributes:
        rows: (K, D) buffer, of unit length: the classes of training, part of the state dict.
    """

    def __init__(self, in_channels: int, num_classes: int, scale: float = 100.0, **kwargs: Any) -> None:
        kwargs.setdefault("reg_class_agnostic", True)
        kwargs.setdefault("loss_bbox", {"type": "L1Loss"})
        super().__init__(
            in_channels=in_channels, num_classes=num_classes, roi_feat_size=1, with_cls=True, **kwargs
        )
        del self.fc_cls  # the words take its place
        own_init: list[Any] = self.init_cfg or []  # type: ignore[has-type]
        self.init_cfg = [cfg for cfg in own_init if cfg.get("override", {}).get("name") != "fc_cls"]
        self.scale = scale
        self.register_buffer("rows", torch.zeros(num_classes, in_channels))
        self._test_rows: Tensor | None = None

    def set_rows(self, rows: Tensor) -> None:
        """Sets the classes of training from embeddings (K, D), e.g. of a published ``*_cls_emb.pth``.

        Raises:
            ValueError: The number of classes or the dimension is another one.
        """
        if rows.shape != self.rows.shape:
            raise ValueError(
                f"class embeddings {tuple(rows.shape)} do not fit this head {tuple(self.rows.shape)}: "
                "num_classes must be their number and in_channels the dimension of the tower"
            )
        self.rows.copy_(F.normalize(rows.to(self.rows), dim=-1))

    def set_vocabulary(self, bank: TextBank | None) -> None:
        """Sets the classes of prediction, any number of them; None for those of training."""
        self._test_rows = None if bank is None else class_rows(bank).to(self.rows)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """(N, D) region embeddings, or (N, D, 1, 1), to logits (N, K + 1) and deltas (N, 4)."""
        x, rows = x.flatten(1), self._test_rows
        if self.training or rows is None:
            rows = F.pad(self.rows, (0, 0, 0, 1))
        logits = region_logits(x, rows, self.scale)
        return logits, self.fc_reg(x) if self.with_reg else None
