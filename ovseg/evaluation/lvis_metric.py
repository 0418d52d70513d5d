"""Average precision on LVIS, as a metric of mmengine's runner."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from ovseg.evaluation.average_precision import average_precision
from ovseg.evaluation.ground_truth import parse_ground_truth, read_annotations
from ovseg.registry import METRICS
from ovseg.vocab.shipped import read_list

__all__ = ["OpenVocabularyLVISMetric"]

_LIMIT = 300


@METRICS.register_module()
class OpenVocabularyLVISMetric(BaseMetric):
    """Box AP of LVIS v1 on the images that were seen: all, rare (novel), common, frequent; AP50.

    mmdet's ``LVISMetric`` needs the ``lvis`` package, which does not run with numpy 2; the figures are the
    same.

    Args:
        ann_file: ``lvis_v1_val.json``.
        words: The shipped list of its classes, which are those of the data set.
    """

    default_prefix = "lvis"

    def __init__(self, ann_file: str, words: str = "lvis_v1.regionclip", collect_device: str = "cpu") -> None:
        super().__init__(collect_device=collect_device)
        self.ann_file, self.words = ann_file, words

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keeps the detections of a batch."""
        for sample in data_samples:
            found = sample["pred_instances"]
            columns = [found[name].cpu().numpy() for name in ("bboxes", "scores", "labels")]
            self.results.append((sample["img_id"], *columns))

    def compute_metrics(
        self, results: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]
    ) -> dict[str, float]:
        """``AP``, ``AP50``, ``APr``, ``APc``, ``APf`` as shares; -1 for a group without true boxes."""
        entries = read_list(self.words)["classes"]
        document = read_annotations(Path(self.ann_file))
        truths = {
            truth.image_id: truth for truth in parse_ground_truth(document, [e["name"] for e in entries])
        }
        ids, boxes, scores, labels = zip(*results)
        found = average_precision(
            [truths[i] for i in ids], boxes, scores, labels, classes=len(entries), limit=_LIMIT
        )
        everything = found.mean()
        out = {"AP": everything["ap"], "AP50": everything["ap50"]}
        for letter in "rcf":
            out[f"AP{letter}"] = found.mean([k for k, e in enumerate(entries) if e["frequency"] == letter])[
                "ap"
            ]
        return {name: -1.0 if math.isnan(value) else value for name, value in out.items()}
