"""The classification loss of RegionCLIP's fine-tuning, as mmdet's box heads call it."""

from __future__ import annotations

from torch import Tensor, nn

from ovseg.regions.losses import focal_cross_entropy, weighted_cross_entropy
from ovseg.registry import MODELS

__all__ = ["RegionCrossEntropy"]


@MODELS.register_module()
class RegionCrossEntropy(nn.Module):
    """Cross entropy of regions with a weight for background.

    Args:
        gamma: Focal scaling (OV-COCO: 0.5); the mean is over all regions. None: no scaling, and the mean is
            divided by the sum of the weights (OV-LVIS), which mmdet's own ``class_weight`` does not do.
        background_weight: OV-COCO 0.2, OV-LVIS 0.8.
        loss_weight: Of the result.
    """

    def __init__(
        self, gamma: float | None = 0.5, background_weight: float = 1.0, loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.gamma = gamma
        self.background_weight = background_weight
        self.loss_weight = loss_weight

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """(N, K + 1) logits and (N,) labels, K = background, to a scalar.

        ``weight`` (N,) leaves out regions where it is 0; ``avg_factor`` is not needed and not used.

        Raises:
            NotImplementedError: A reduction other than the mean is asked for.
        """
        if reduction_override not in (None, "mean"):
            raise NotImplementedError(f"reduction {reduction_override!r}; only the mean is defined")
        if weight is not None and not weight.all():
            cls_score, label = cls_score[weight > 0], label[weight > 0]
        if self.gamma is None:
            return self.loss_weight * weighted_cross_entropy(cls_score, label, self.background_weight)
        return self.loss_weight * focal_cross_entropy(
            cls_score, label, gamma=self.gamma, background_weight=self.background_weight
        )
