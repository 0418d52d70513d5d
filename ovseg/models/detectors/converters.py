"""Published detectron2 checkpoints to the state dict of ``RegionCLIPDetector``; what is missing raises."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.models.detectors.localiser import FrozenLocaliser
from ovseg.models.detectors.region_clip import RegionCLIPDetector
from ovseg.regions.converters import RegionCLIPWeights
from ovseg.towers.checkpoints import check_fits, read_state_dict

__all__ = ["convert_localiser", "load_region_clip", "load_vit_regions", "read_localiser"]

_POOL = ("layer4.", "attnpool.")
_RPN = {"objectness_logits": "rpn_cls", "anchor_deltas": "rpn_reg", "conv": "rpn_conv"}
_MASK = {"deconv": "upsample", "predictor": "conv_logits"}
_CONV = {"conv1": "conv1", "conv2": "conv2", "conv3": "conv3", "shortcut": "downsample.0"}
_NORM = {"conv1": "bn1", "conv2": "bn2", "conv3": "bn3", "shortcut": "downsample.1"}
_BLOCK = re.compile(r"res(\d)\.(\d+)\.(\w+)\.(norm\.)?(\w+)")
_FPN = re.compile(r"fpn_(lateral|output)(\d)\.(norm\.)?(\w+)")
_RPN_NAME = re.compile(r"rpn_head\.(conv|objectness_logits|anchor_deltas)(?:\.conv(\d))?\.(\w+)")


def load_region_clip(
    detector: RegionCLIPDetector,
    weights: RegionCLIPWeights,
    localiser: Mapping[str, Tensor] | None = None,
    *,
    for_training: bool = False,
) -> None:
    """Fills a detector from a published checkpoint, or from a bare CLIP, strictly.

    The classes of training come from the checkpoint where it has as many as the detector; else they are left
    as they are, to be set with ``set_rows`` or ``set_vocabulary``.

    Args:
        detector: Of the checkpoint's architecture.
        weights: From ``convert_region_clip``; or ``RegionCLIPWeights(visual)`` of any ``ModifiedResNet``.
        localiser: A second file with the localiser, for checkpoints that are not merged with theirs.
        for_training: A regressor and a mask head that the checkpoint lacks (pretraining has none) keep their
            initial values.

    Raises:
        CheckpointError: A tensor is missing, left over or of another shape. In particular the localiser: a
            detector that silently runs on a random one finds nothing.
    """
    head = detector.roi_head.bbox_head
    state = {}
    for name, value in weights.visual.items():
        state[("roi_head.shared_head." if name.startswith(_POOL) else "backbone.") + name] = value
    regressor = weights.regressor
    if head.with_reg and for_training and not regressor:
        regressor = head.fc_reg.state_dict()
    if head.with_reg:
        state |= {f"roi_head.bbox_head.fc_reg.{name}": value for name, value in regressor.items()}
    if detector.roi_head.with_mask:
        mask_head = {_mask_name(name): value for name, value in weights.mask_head.items()}
        if for_training and not mask_head:
            mask_head = detector.roi_head.mask_head.state_dict()
        state |= {f"roi_head.mask_head.{name}": value for name, value in mask_head.items()}
    fits = weights.rows is not None and weights.rows.shape == head.rows.shape
    state["roi_head.bbox_head.rows"] = F.normalize(weights.rows, dim=-1) if fits else head.rows  # type: ignore[arg-type]
    if detector.localiser is not None:
        if localiser is None:
            parts = {"backbone": weights.localiser_backbone, "proposal_generator": weights.localiser_rpn}
            localiser = {
                f"{part}.{name}": value for part, own in parts.items() for name, value in own.items()
            }
        state |= {f"localiser.{name}": value for name, value in convert_localiser(localiser).items()}
    check_fits(state, detector, "this RegionCLIP checkpoint")
    detector.load_state_dict(state)


def load_vit_regions(detector: RegionCLIPDetector, state: Mapping[str, Tensor], source: str) -> None:
    """Fills both parts of a detector's ViT from the student of a pretraining.

    Args:
        detector: With ``CLIPViTC4`` and ``CLIPViTBlocksHead``.
        state: Of a ``RegionCLIPPretrainer``.
        source: What to call it in an error.

    Raises:
        CheckpointError: A tensor is missing or of another shape.
    """
    for part in (detector.backbone.regions, detector.roi_head.shared_head.regions):
        own = part.state_dict()
        found = {name: state[f"student.{name}"] for name in own if f"student.{name}" in state}
        check_fits(found, part, source)
        part.load_state_dict(found)


def read_localiser(path: str | os.PathLike[str], localiser: FrozenLocaliser) -> None:
    """Fills a localiser from a file: a published one of detectron2, or a training of ours with mmdet's RPN.

    Raises:
        CheckpointError: A tensor is missing, left over or of another shape.
    """
    state = read_state_dict(Path(path))
    if any(name.startswith("bbox_head.rpn_") for name in state):  # as mmdet's RPN names its only head
        names = {name: name.replace("bbox_head.", "rpn_head.", 1) for name in state}
        kept = ("rpn_head.", "neck.") if localiser.backbone is None else ("rpn_head.", "neck.", "backbone.")
        weights = {new: state[old] for old, new in names.items() if new.startswith(kept)}
    else:
        weights = convert_localiser(state)
    check_fits(weights, localiser, os.fspath(path))
    localiser.load_state_dict(weights)


def _mask_name(name: str) -> str:
    layer, _, kind = name.partition(".")
    return f"{_MASK.get(layer, layer)}.{kind}"


def convert_localiser(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """detectron2's C4 or FPN proposal network to the names of ``FrozenLocaliser``.

    Args:
        state_dict: With ``backbone.*`` and ``proposal_generator.*``. Its ``roi_heads.*`` (a localiser is a
            whole Faster R-CNN) and the anchors, which follow from the configuration, are left out.

    Raises:
        ValueError: A name is unknown.
    """
    out: dict[str, Tensor] = {}
    for name, value in state_dict.items():
        if name.startswith("roi_heads.") or "cell_anchors" in name:
            continue
        target = _localiser_name(name)
        out[target] = value
        if target.endswith("running_mean"):  # detectron2's frozen batch norms do not count
            out[target.replace("running_mean", "num_batches_tracked")] = torch.tensor(0)
    return out


def _localiser_name(name: str) -> str:
    part, _, rest = name.partition(".")
    rest = rest.removeprefix("bottom_up.")
    if part == "proposal_generator" and (match := _RPN_NAME.fullmatch(rest)):
        layer, index, kind = match.groups()
        inner = "" if index is None else f".{index}.conv"
        return f"rpn_head.{_RPN[layer]}{inner}.{kind}"
    if part == "backbone":
        if rest.startswith("stem.conv1."):
            kind = rest.removeprefix("stem.conv1.")
            return "backbone." + (f"bn1.{kind[5:]}" if kind.startswith("norm.") else f"conv1.{kind}")
        if (match := _BLOCK.fullmatch(rest)) and match[3] in _CONV:
            stage, block, conv, norm, kind = match.groups()
            return f"backbone.layer{int(stage) - 1}.{block}.{(_NORM if norm else _CONV)[conv]}.{kind}"
        if match := _FPN.fullmatch(rest):
            side, level, norm, kind = match.groups()
            convs = "lateral_convs" if side == "lateral" else "fpn_convs"
            return f"neck.{convs}.{int(level) - 2}.{'bn' if norm else 'conv'}.{kind}"
    raise ValueError(f"{name!r} is no part of a detectron2 proposal network")
