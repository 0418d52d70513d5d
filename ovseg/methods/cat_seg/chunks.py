"""Working through many classes a few at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["over_chunks"]

_TOKENS = 4608  # of a thread; 8 classes on a grid of 24 x 24: hidden layers of 512 channels take 9 MB
_TOKENS_ELSEWHERE = 1 << 17  # enough to fill a GPU; hidden layers take 270 MB


def over_chunks(function: Callable[[Tensor], Tensor], x: Tensor, dim: int = 0, multiple: int = 1) -> Tensor:
    """``function(x)``, for parts of ``x`` along a dimension over which it works independently.

    What is in between stays in the processor's cache. For gradients it is computed again, part by part,
    rather than kept: a training step would otherwise hold a hundred tensors of the size of ``x``, and spend
    more time on memory than on arithmetic.

    Args:
        function: Of parts of ``x``.
        x: (..., C).
        dim: The dimension.
        multiple: Of which the length of the parts is one (but for the last).
    """
    tokens_each = x[..., 0].numel() // x.shape[dim]
    tokens = _TOKENS * torch.get_num_threads() if x.device.type == "cpu" else _TOKENS_ELSEWHERE
    step = max(tokens // (tokens_each * multiple), 1) * multiple
    parts = x.split(step, dim)
    if not torch.is_grad_enabled():
        return torch.cat([function(part) for part in parts], dim)
    again = partial(checkpoint, function, use_reentrant=False, preserve_rng_state=False)
    return torch.cat([again(part) for part in parts], dim)
