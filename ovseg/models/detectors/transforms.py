"""Pipeline steps of mmdet for region classification."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.structures.bbox import get_box_tensor

from ovseg.registry import TRANSFORMS

__all__ = ["TruthAsProposals"]


@TRANSFORMS.register_module()
class TruthAsProposals(BaseTransform):
    """Ground-truth boxes become the proposals ("GT" in RegionCLIP's table 4).

    Stands after ``LoadAnnotations`` and ``Resize`` in this order; mmdet's usual test pipeline loads
    annotations after resizing, which leaves the boxes in the original image's pixels. Boxes to be ignored
    (crowds) are left out.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Adds ``proposals`` (N, 4) and their ``proposals_scores`` (N,), all 1.

        Raises:
            ValueError: There are no annotations yet.
        """
        if "gt_bboxes" not in results:
            raise ValueError(
                "TruthAsProposals needs boxes; put LoadAnnotations(with_bbox=True) before Resize"
            )
        boxes = get_box_tensor(results["gt_bboxes"]).numpy()
        kept = ~np.asarray(results.get("gt_ignore_flags", np.zeros(len(boxes), bool)), bool)
        results["proposals"] = boxes[kept].astype(np.float32)
        results["proposals_scores"] = np.ones(int(kept.sum()), np.float32)
        return results
