"""Linear layers at inference on processors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["linear"]

_FEW_ROWS = 16  # below it there is nothing to gain


def _onednn() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


_HAS_ONEDNN = _onednn()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear`` of (..., C) by weights (D, C); in float32 without gradients through oneDNN.

    ``F.linear`` is carried out by MKL, which uses the widest instructions of Intel's processors only: on an
    AMD with AVX-512, oneDNN takes half the time. The results differ by rounding.
    """
    plain = torch.is_grad_enabled() or x.dtype != torch.float32 or x.device.type != "cpu"
    if plain or not _HAS_ONEDNN or x.numel() < _FEW_ROWS * x.shape[-1]:
        return F.linear(x, weight, bias)
    if not (weight.is_contiguous() or weight.T.is_contiguous()):
        weight = weight.contiguous()  # of part of a wider weight, oneDNN takes hundreds of times as long
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
