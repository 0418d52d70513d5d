"""mmdet's metric of OV-COCO, also where nothing was detected."""

from __future__ import annotations

from typing import Any

from ovseg.ops.mmcv_ext import install

install()  # mmdet.evaluation imports mmcv.ops

from mmdet.evaluation import OVCocoMetric  # noqa: E402

from ovseg.registry import METRICS  # noqa: E402

__all__ = ["OpenVocabularyCocoMetric"]

_FIGURES = ("base_ap", "novel_ap", "base_ap50", "novel_ap50", "bbox_mAP", "bbox_mAP_50", "bbox_mAP_75",
            "bbox_mAP_s", "bbox_mAP_m", "bbox_mAP_l")  # fmt: skip


@METRICS.register_module()
class OpenVocabularyCocoMetric(OVCocoMetric):
    """``OVCocoMetric``, which returns no figures for an empty result, as a detector has in its first steps.

    Then all are 0, so that a run can choose its best checkpoint by them. For ``metric="bbox"``.
    """

    def compute_metrics(self, results: list[tuple[Any, dict[str, Any]]]) -> dict[str, float]:
        """mmdet's figures, as shares."""
        if any(len(found["scores"]) for _, found in results):
            return super().compute_metrics(results)
        return dict.fromkeys(_FIGURES, 0.0)
