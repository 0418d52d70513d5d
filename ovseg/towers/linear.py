"""Linear layers at inference on processors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["linear"]

Activation = Literal["none", "relu", "gelu"]

_PLAIN: dict[Activation, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "relu": F.relu, "gelu": F.gelu}
_FEW_ROWS = 16  # below it there is nothing to gain


def _onednn() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


_HAS_ONEDNN = _onednn()


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: Activation = "none",
    add: Tensor | None = None,
) -> Tensor:
    """``F.linear`` of (..., C) by weights (D, C); in float32 without gradients through oneDNN.

    ``F.linear`` is carried out by MKL, which uses the widest instructions of Intel's processors only: on an
    AMD with AVX-512, oneDNN takes half the time. The results differ by rounding.

    Args:
        x: (..., C).
        weight: (D, C).
        bias: (D,).
        activation: Of the result, computed along with it.
        add: (..., D), added to the result; not together with an activation.
    """
    plain = torch.is_grad_enabled() or x.dtype != torch.float32 or x.device.type != "cpu"
    if plain or not _HAS_ONEDNN or x.numel() < _FEW_ROWS * x.shape[-1]:
        out = _PLAIN[activation](F.linear(x, weight, bias))
        return out if add is None else add + out
    if not (weight.is_contiguous() or weight.T.is_contiguous()):
        weight = weight.contiguous()  # of part of a wider weight, oneDNN takes hundreds of times as long
    if add is not None:
        return torch.ops.mkldnn._linear_pointwise.binary(x, add, weight, bias, "add")
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "none")
