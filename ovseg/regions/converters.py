"""RegionCLIP's published checkpoints (detectron2) taken apart, and put together again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["RegionCLIPWeights", "convert_region_clip", "to_region_clip"]

_PREFIXES = {
    "visual": "backbone.",
    "teacher": "teacher_backbone.",
    "text": "lang_encoder.",
    "localiser_backbone": "offline_backbone.",
    "localiser_rpn": "offline_proposal_generator.",
    "regressor": "roi_heads.box_predictor.bbox_pred.",
    "mask_head": "roi_heads.mask_head.",
}
_ROWS = {
    "rows": "roi_heads.box_predictor.cls_score.weight",
    "background": "roi_heads.box_predictor.cls_bg_score.weight",
    "test_rows": "roi_heads.box_predictor.test_cls_score.weight",
}
_TOWERS = ("visual", "teacher")
_COUNTER = "num_batches_tracked"  # detectron2's frozen batch norms do not count


@dataclass(frozen=True)
class RegionCLIPWeights:
    """The parts of a checkpoint; a part that the file lacks is empty or None.

    Attributes:
        visual: Of a ``ModifiedResNet``.
        teacher: Of pretraining, likewise.
        text: Of a ``TextTransformer``.
        regressor: ``weight`` (4, D) and ``bias`` (4,) of the box regressor.
        mask_head: OV-LVIS, in detectron2's names.
        localiser_backbone: The frozen localiser's, in detectron2's names.
        localiser_rpn: Likewise.
        rows: (K, D) text embeddings of the classes in training.
        test_rows: (K', D) those of the classes at test time.
        background: (1, D) zeros.
    """

    visual: dict[str, Tensor]
    teacher: dict[str, Tensor] = field(default_factory=dict)
    text: dict[str, Tensor] = field(default_factory=dict)
    regressor: dict[str, Tensor] = field(default_factory=dict)
    mask_head: dict[str, Tensor] = field(default_factory=dict)
    localiser_backbone: dict[str, Tensor] = field(default_factory=dict)
    localiser_rpn: dict[str, Tensor] = field(default_factory=dict)
    rows: Tensor | None = None
    test_rows: Tensor | None = None
    background: Tensor | None = None


def convert_region_clip(state_dict: Mapping[str, Tensor]) -> RegionCLIPWeights:
    """Takes a checkpoint of microsoft/RegionCLIP apart: pretrained, fine-tuned, or merged with its localiser.

    Raises:
        ValueError: A name belongs to no part (a proposal generator of its own, another model), there is no
            visual tower, or the background is not zero.
    """
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PREFIXES}
    single: dict[str, Tensor] = {}
    unknown = []
    for name, value in state_dict.items():
        part = next((part for part, prefix in _PREFIXES.items() if name.startswith(prefix)), None)
        row = next((row for row, full in _ROWS.items() if name == full), None)
        if part is not None:
            parts[part][name.removeprefix(_PREFIXES[part])] = value
        elif row is not None:
            single[row] = value
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(f"{len(unknown)} names are no part of a RegionCLIP checkpoint: {_some(unknown)}")
    if "conv1.weight" not in parts["visual"]:
        raise ValueError(
            f"no RegionCLIP checkpoint: there is no backbone.conv1.weight in {_some(state_dict)}"
        )
    if "background" in single and single["background"].any():
        raise ValueError("cls_bg_score is not zero; only RegionCLIP's zero background is known")
    for tower in _TOWERS:
        parts[tower] = _with_counters(parts[tower])
    return RegionCLIPWeights(**parts, **single)  # type: ignore[arg-type]


def to_region_clip(weights: RegionCLIPWeights) -> dict[str, Tensor]:
    """The way back: detectron2's names."""
    out: dict[str, Tensor] = {}
    for part, prefix in _PREFIXES.items():
        values = getattr(weights, part)
        out |= {prefix + name: value for name, value in values.items() if not name.endswith(_COUNTER)}
    rows = {full: getattr(weights, row) for row, full in _ROWS.items()}
    return out | {name: value for name, value in rows.items() if value is not None}


def _with_counters(tower: dict[str, Tensor]) -> dict[str, Tensor]:
    counters = {
        name.replace("running_mean", _COUNTER): torch.tensor(0) for name in tower if "running_mean" in name
    }
    return tower | counters


def _some(names: object, limit: int = 3) -> str:
    listed = list(names)  # type: ignore[call-overload]
    return ", ".join(listed[:limit]) + (" ..." if len(listed) > limit else "")
