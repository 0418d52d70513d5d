"""The RoI head that keeps the proposals' objectness for the final score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor

from ovseg.regions.proposals import Proposals
from ovseg.regions.region_clip import RegionRules, detect_regions
from ovseg.regions.select import Selection
from ovseg.regions.vit import RegionRegressor
from ovseg.registry import MODELS

__all__ = ["RegionRoIHead"]


@MODELS.register_module()
class RegionRoIHead(StandardRoIHead):
    """mmdet's RoI head in training; RegionCLIP's scores in prediction.

    ``test_cfg`` has ``score_thr``, ``nms`` (IoU, a number), ``max_per_img``, and optionally ``objectness``
    (``raw_logit`` or ``sigmoid``) and ``soft_sigma``.

    Args:
        *args: Of ``StandardRoIHead``.
        regressor: Arguments of ``RegionRegressor``, which moves boxes by the maps of regions; None: the box
            head's own regressor does, by their embeddings.
        **kwargs: Of ``StandardRoIHead``.
    """

    def __init__(self, *args: Any, regressor: Mapping[str, int] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.regressor = None if regressor is None else RegionRegressor(**regressor)

    def _bbox_forward(self, x: tuple[Tensor, ...], rois: Tensor) -> dict[str, Any]:
        maps = self.bbox_roi_extractor(x[: self.bbox_roi_extractor.num_inputs], rois)
        regions = self.shared_head(maps) if self.with_shared_head else maps
        scores, moves = self.bbox_head(regions)
        if self.regressor is not None:
            moves = self.regressor(maps)
        return {"cls_score": scores, "bbox_pred": moves, "bbox_feats": regions}

    def predict_bbox(
        self,
        x: tuple[Tensor, ...],
        batch_img_metas: list[dict[str, Any]],
        rpn_results_list: list[InstanceData],
        rcnn_test_cfg: Any,
        rescale: bool = False,
    ) -> list[InstanceData]:
        """Detections of each image, in pixels of the original image with ``rescale``."""
        counts = [len(proposals) for proposals in rpn_results_list]
        scores = self._bbox_forward(x, bbox2roi([p.bboxes for p in rpn_results_list]))
        deltas = scores["bbox_pred"]
        moves = [None] * len(counts) if deltas is None else deltas.split(counts)
        rules = _rules(rcnn_test_cfg)
        results = []
        for logits, move, proposals, meta in zip(
            scores["cls_score"].split(counts), moves, rpn_results_list, batch_img_metas
        ):
            target = meta["ori_shape"] if rescale else meta["img_shape"]
            found = detect_regions(
                logits, _proposals(proposals), move, meta["img_shape"][:2], target[:2], rules
            )
            results.append(InstanceData(bboxes=found.boxes, scores=found.scores, labels=found.labels))
        return results

    def _mask_forward(self, x: Any, rois: Any = None, pos_inds: Any = None, bbox_feats: Any = None) -> dict:
        """Masks are drawn from maps; what the attention pool returns is a vector."""
        if rois is None:
            raise ValueError("bbox_feats are pooled vectors; give the mask head its own mask_roi_extractor")
        maps = self.shared_head.forward_maps(
            self.mask_roi_extractor(x[: self.mask_roi_extractor.num_inputs], rois)
        )
        return {"mask_preds": self.mask_head(maps), "mask_feats": maps}


def _rules(cfg: Any) -> RegionRules:
    selection = Selection(
        threshold=cfg["score_thr"],
        nms=cfg["nms"],
        limit=cfg["max_per_img"],
        soft_sigma=cfg.get("soft_sigma"),
    )
    return RegionRules(cfg.get("objectness"), selection)


def _proposals(instances: InstanceData) -> Proposals:
    if "logits" in instances:
        return Proposals(instances.bboxes, instances.logits)
    scores = instances.get("scores")
    return Proposals(instances.bboxes, None if scores is None else torch.logit(scores, eps=1e-6))
