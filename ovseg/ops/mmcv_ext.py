"""A stand-in for ``mmcv._ext``, the compiled part of mmcv, where mmcv was built without it.

mmdet imports ``mmcv.ops``, and that the extension module; compiling it takes a quarter of an hour and fails
on new releases of torch. Ordinary detectors need four of its operations: NMS, RoIAlign and the sigmoid focal
loss (that of one-stage detectors on a GPU), which torchvision has, and soft-NMS. The others exist by name and
raise when they are called.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
import torchvision  # registers its operators
from torch import Tensor

from ovseg.ops.soft_nms import SoftNMSMethod, soft_nms

__all__ = ["install", "is_stand_in"]

_NAME = "mmcv._ext"
_SOFT_NMS_METHODS: tuple[SoftNMSMethod, ...] = ("naive", "linear", "gaussian")  # mmcv's numbers for them


def install() -> None:
    """Makes ``import mmcv.ops`` work. Does nothing where mmcv was compiled, or where this was done before."""
    if _NAME not in sys.modules and importlib.util.find_spec(_NAME) is None:
        sys.modules[_NAME] = _StandIn()


def is_stand_in() -> bool:
    """Whether ``mmcv._ext`` is this stand-in and not compiled."""
    return isinstance(sys.modules.get(_NAME), _StandIn)


class _StandIn(ModuleType):
    """The module; what it lacks is a function that says so."""

    def __init__(self) -> None:
        super().__init__(_NAME, "Stand-in of ovseg for mmcv's compiled operations.")
        self.__spec__ = ModuleSpec(_NAME, None)
        self.__dict__.update(_OPERATIONS)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {_NAME!r} has no attribute {name!r}")
        return _missing(name)


def _missing(name: str) -> Callable[..., Any]:
    def operation(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(
            f"the operation {name!r} of mmcv is compiled, and this mmcv was built without compiled ones; "
            "choose a model that does not use it, or compile them (15 minutes, a compiler, torch <= 2.13): "
            "pip install --no-build-isolation --no-deps --force-reinstall --no-cache-dir onedl-mmcv"
        )

    operation.__name__ = name
    return operation


def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    if offset:  # there x2 and y2 are the last pixels inside
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torchvision.ops.nms(boxes.float(), scores.float(), iou_threshold)


def _softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Returns the kept indices; the first rows of ``dets`` (N, 5) become their boxes and scores."""
    kept, final = soft_nms(
        boxes,
        scores,
        method=_SOFT_NMS_METHODS[method],
        sigma=sigma,
        iou_threshold=iou_threshold,
        min_score=min_score,
        offset=offset,
    )
    dets[: len(kept)] = torch.cat([boxes[kept], final[:, None]], dim=1).to(dets)
    return kept


def _roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fills ``output``; mmcv's own autograd function calls the backward below."""
    if pool_mode == 0:
        _missing("roi_align_forward with pool_mode='max'")()
    output.copy_(
        torch.ops.torchvision.roi_align(
            input, rois.to(input), spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned
        )
    )


def _roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            grad_output,
            rois.to(grad_output),
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    )


def _focal_loss(logits: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    """(N, C) losses of logits (N, C) for classes (N,), of which C is background."""
    if weight.numel():
        _missing("sigmoid_focal_loss with weights of classes")()
    count = logits.shape[1]
    truth = F.one_hot(target, count + 1)[:, :count].to(logits)
    return torchvision.ops.sigmoid_focal_loss(logits, truth, alpha, gamma)


def _sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    output.copy_(_focal_loss(input, target, weight, gamma, alpha))


def _sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fills ``grad_input`` with the derivative of each loss; mmcv multiplies by what comes from above."""
    with torch.enable_grad():
        logits = input.detach().requires_grad_()
        loss = _focal_loss(logits, target, weight, gamma, alpha).sum()
        grad_input.copy_(torch.autograd.grad(loss, logits)[0])


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "nms": _nms,
    "softnms": _softnms,
    "roi_align_forward": _roi_align_forward,
    "roi_align_backward": _roi_align_backward,
    "sigmoid_focal_loss_forward": _sigmoid_focal_loss_forward,
    "sigmoid_focal_loss_backward": _sigmoid_focal_loss_backward,
}
