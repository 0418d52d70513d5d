"""Linear layers over many tokens."""

from __future__ import annotations

from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.towers.linear import linear as inference_linear

__all__ = ["MLP", "Linear", "linear"]

_BATCH = 16  # PyTorch hands 1 x 1 convolutions to oneDNN from this batch size on, even on one thread


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, add: Tensor | None = None) -> Tensor:
    """``F.linear`` of (..., C), plus ``add`` (..., D).

    For gradients it is, on processors, a 1 x 1 convolution over an image with channels last: both are one
    matrix product. oneDNN carries out convolutions with the widest instructions that the processor has; MKL,
    which carries out ``F.linear``, does so on Intel's only. On an AMD with AVX-512 this takes half the time.
    """
    if not torch.is_grad_enabled():
        return inference_linear(x, weight, bias, add=add)
    if x.device.type != "cpu" or x.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        out = F.linear(x, weight, bias)
    else:
        tokens = x.numel() // x.shape[-1]
        batch = _BATCH if tokens % _BATCH == 0 else 1
        image = x.reshape(batch, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)
        out = F.conv2d(image, weight[:, :, None, None], bias)
        out = out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)
    return out if add is None else add + out


class Linear(nn.Linear):
    """``nn.Linear`` through ``linear``."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


class MLP(nn.Sequential):
    """Two linear layers with the fourfold width in between, and the residual."""

    def __init__(self, width: int, activation: Literal["relu", "gelu"]) -> None:
        act = {"relu": nn.ReLU, "gelu": nn.GELU}[activation]()
        super().__init__(Linear(width, 4 * width), act, Linear(4 * width, width))
        self.activation: Literal["relu", "gelu"] = activation

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:  # type: ignore[override]
        """``residual`` plus the layers' output for ``x``, both (..., C)."""
        first, last = cast(Linear, self[0]), cast(Linear, self[2])
        if torch.is_grad_enabled():
            hidden = self[1](first(x))
        else:
            hidden = inference_linear(x, first.weight, first.bias, self.activation)
        return linear(hidden, last.weight, last.bias, residual)
