"""Linear layers over many tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.towers.linear import linear as inference_linear

__all__ = ["Linear", "linear"]

_BATCH = 16  # PyTorch hands 1 x 1 convolutions to oneDNN from this batch size on, even on one thread


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear`` of (..., C), on processors as a 1 x 1 convolution over an image with channels last.

    Both are one matrix product. oneDNN carries out convolutions with the widest instructions that the
    processor has; MKL, which carries out ``F.linear``, does so on Intel's only. On an AMD with AVX-512 this
    takes half the time.
    """
    if not torch.is_grad_enabled():
        return inference_linear(x, weight, bias)
    if x.device.type != "cpu" or x.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return F.linear(x, weight, bias)
    tokens = x.numel() // x.shape[-1]
    batch = _BATCH if tokens % _BATCH == 0 else 1
    image = x.reshape(batch, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)
    out = F.conv2d(image, weight[:, :, None, None], bias)
    return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


class Linear(nn.Linear):
    """``nn.Linear`` through ``linear``."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)
