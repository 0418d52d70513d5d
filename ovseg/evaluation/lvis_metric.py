"""Average precision on LVIS, as a metric of mmengine's runner."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from ovseg.evaluation.average_precision import ClassPrecision, average_precision
from ovseg.evaluation.ground_truth import parse_ground_truth, read_annotations
from ovseg.registry import METRICS
from ovseg.vocab.shipped import read_list

__all__ = ["OpenVocabularyLVISMetric"]

_LIMIT = 300


@METRICS.register_module()
class OpenVocabularyLVISMetric(BaseMetric):
    """AP of LVIS v1 on the images that were seen: all, rare (novel), common, frequent; AP50.

    mmdet's ``LVISMetric`` needs the ``lvis`` package, which does not run with numpy 2; the figures are the
    same.

    Args:
        ann_file: ``lvis_v1_val.json``.
        metric: ``bbox``, ``segm`` or both.
        words: The shipped list of its classes, which are those of the data set.

    Raises:
        ValueError: The metric is unknown.
    """

    default_prefix = "lvis"

    def __init__(
        self,
        ann_file: str,
        metric: str | Sequence[str] = "bbox",
        words: str = "lvis_v1.regionclip",
        collect_device: str = "cpu",
    ) -> None:
        super().__init__(collect_device=collect_device)
        self.metrics = (metric,) if isinstance(metric, str) else tuple(metric)
        if unknown := set(self.metrics) - {"bbox", "segm"}:
            raise ValueError(f"unknown metric {sorted(unknown)[0]!r}; bbox, segm")
        self.ann_file, self.words = ann_file, words

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keeps the detections of a batch, masks as run lengths."""
        for sample in data_samples:
            found = sample["pred_instances"]
            kept = {name: found[name].cpu().numpy() for name in ("bboxes", "scores", "labels")}
            if "segm" in self.metrics:
                kept["masks"] = _encode(found["masks"].cpu().numpy())
            self.results.append((sample["img_id"], kept))

    def compute_metrics(self, results: list[tuple[int, dict[str, Any]]]) -> dict[str, float]:
        """``bbox_AP``, ``bbox_AP50``, ``bbox_APr``, ``bbox_APc``, ``bbox_APf`` as shares, and of ``segm``.

        -1 for a group without true boxes.
        """
        entries, segm = read_list(self.words)["classes"], "segm" in self.metrics
        names = [entry["name"] for entry in entries]
        document = read_annotations(Path(self.ann_file))
        truths = {truth.image_id: truth for truth in parse_ground_truth(document, names, segm)}
        seen = [truths[i] for i, _ in results]
        boxes, scores, labels = (
            [kept[name] for _, kept in results] for name in ("bboxes", "scores", "labels")
        )
        out: dict[str, float] = {}
        for kind in self.metrics:
            masks = [kept["masks"] for _, kept in results] if kind == "segm" else None
            found = average_precision(seen, boxes, scores, labels, len(entries), _LIMIT, masks)
            out |= {f"{kind}_{name}": value for name, value in _figures(found, entries).items()}
        return {name: -1.0 if math.isnan(value) else value for name, value in out.items()}


def _figures(found: ClassPrecision, entries: Sequence[Mapping[str, str]]) -> dict[str, float]:
    everything = found.mean()
    out = {"AP": everything["ap"], "AP50": everything["ap50"]}
    for letter in "rcf":
        out[f"AP{letter}"] = found.mean([k for k, e in enumerate(entries) if e["frequency"] == letter])["ap"]
    return out


def _encode(masks: np.ndarray) -> list[Mapping[str, Any]]:
    """(N, H, W) bool to N run lengths."""
    from pycocotools import mask as rle

    return [rle.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
