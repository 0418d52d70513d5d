"""A published localiser as a source of proposals for ``predictor.detect``, without any config."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ovseg.inference.protocol import Resize
from ovseg.models.detectors.converters import convert_localiser
from ovseg.models.detectors.localiser import FrozenLocaliser
from ovseg.regions.proposals import Proposals
from ovseg.towers.checkpoints import CheckpointError, check_fits, read_state_dict

__all__ = ["Localiser", "load_localiser"]

_MEAN_BGR = (103.53, 116.28, 123.675)
_RESIZE = Resize(800, 1333)
_DEPTHS = {6: 50, 23: 101}  # by the blocks of the third stage


class Localiser:
    """Finds boxes: called with an image (H, W, 3) uint8 RGB, it returns ``Proposals`` in its pixels.

    Args:
        network: The proposal network.
        resize: What it was trained on.
        divisor: The padded sides are multiples of it.
    """

    def __init__(self, network: FrozenLocaliser, resize: Resize = _RESIZE, divisor: int = 1) -> None:
        self.network, self.resize, self.divisor = network, resize, divisor

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> Proposals:
        resized = self.resize(image, 16)
        size = (resized.shape[0], resized.shape[1])
        device = next(self.network.parameters()).device
        pixels = torch.from_numpy(resized[..., ::-1].copy()).to(device).permute(2, 0, 1).float()
        pixels = pixels - pixels.new_tensor(_MEAN_BGR)[:, None, None]
        down, right = (-side % self.divisor for side in size)
        padded = torch.nn.functional.pad(pixels, (0, right, 0, down))
        (found,) = self.network.predict(padded[None], [size])
        proposals = Proposals(found.bboxes, found.logits)
        return proposals.rescaled(size, (image.shape[0], image.shape[1]))


def load_localiser(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Localiser:
    """A C4 or FPN proposal network of detectron2, such as RegionCLIP's ``rpn_coco_48.pth``.

    Args:
        path: The file.
        device: Where it is to run.

    Raises:
        CheckpointError: It is damaged, or no ResNet-50 or -101 with an RPN.
    """
    try:
        weights = convert_localiser(read_state_dict(Path(path)))
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}") from error
    fpn = any(name.startswith("neck.") for name in weights)
    network = _network(weights, fpn, os.fspath(path))
    check_fits(weights, network, os.fspath(path))
    network.load_state_dict(weights)
    return Localiser(network.to(device), divisor=32 if fpn else 1)


def _network(weights: Mapping[str, Tensor], fpn: bool, path: str) -> FrozenLocaliser:
    """As the names and shapes say."""
    blocks = {m[1] for name in weights if (m := re.match(r"backbone\.layer3\.(\d+)\.", name))}
    if len(blocks) not in _DEPTHS or "rpn_head.rpn_cls.weight" not in weights:
        raise CheckpointError(f"{path} holds no ResNet-50 or -101 with an RPN")
    feats, channels = weights["rpn_head.rpn_cls.weight"].shape[1], 256 if fpn else 1024
    stages = 4 if fpn else 3
    backbone: dict[str, Any] = {
        "type": "mmdet.ResNet",
        "depth": _DEPTHS[len(blocks)],
        "num_stages": stages,
        "strides": (1, 2, 2, 2)[:stages],
        "dilations": (1,) * stages,
        "out_indices": tuple(range(stages)) if fpn else (2,),
        "style": "caffe",
    }
    convs = {m[1] for name in weights if (m := re.match(r"rpn_head\.rpn_conv\.(\d+)\.conv", name))}
    anchors: dict[str, Any] = {
        "type": "mmdet.AnchorGenerator",
        "scales": [8] if fpn else [2, 4, 8, 16, 32],
        "ratios": [0.5, 1.0, 2.0],
        "strides": [4, 8, 16, 32, 64] if fpn else [16],
        "scale_major": False,
    }
    head = {
        "type": "mmdet.RPNHead",
        "in_channels": channels,
        "feat_channels": feats,
        "num_convs": max(len(convs), 1),
        "anchor_generator": anchors,
        "bbox_coder": {"type": "mmdet.DeltaXYWHBBoxCoder"},
    }
    neck: dict[str, Any] = {
        "type": "mmdet.FPN",
        "in_channels": [256, 512, 1024, 2048],
        "out_channels": 256,
        "num_outs": 5,
    }
    if any(name.startswith("neck.") and ".bn." in name for name in weights):  # large-scale jitter
        neck["norm_cfg"] = {"type": "BN"}
    return FrozenLocaliser(backbone, head, neck if fpn else None, before=1000 if fpn else 6000)
