"""One number per region and class from several: products of powers, by group of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

__all__ = ["ObjectnessRule", "class_exponents", "fuse", "objectness_scores"]

ObjectnessRule = Literal["sigmoid", "raw_logit"]


def fuse(sources: Sequence[Tensor], exponents: Sequence[float | Tensor]) -> Tensor:
    """The weighted geometric mean ``prod_k source_k ** exponent_k``.

    RegionCLIP: probability and objectness, 0.5 each. F-VLM and F-ViT: detector and CLIP probabilities with
    ``1 - alpha, alpha`` on base classes and background and ``1 - beta, beta`` on novel ones (see
    ``class_exponents``). ViLD and BARON: the same with thirds. CORA: exponents 1 and 1.

    Args:
        sources: Each (N, K) or (N, 1), not negative. (A negative raw logit makes its row NaN, on purpose.)
        exponents: One for each source, a number or (K,) numbers.

    Returns:
        (N, K). Not normalised.

    Raises:
        ValueError: The numbers of sources and exponents differ.
    """
    if len(sources) != len(exponents):
        raise ValueError(f"{len(sources)} sources need as many exponents, got {len(exponents)}")
    fused = sources[0] ** exponents[0]
    for source, exponent in zip(sources[1:], exponents[1:]):
        fused = fused * source**exponent
    return fused


def class_exponents(
    novel: Tensor, base_value: float, novel_value: float, background_value: float | None = None
) -> Tensor:
    """An exponent for each class by its group.

    Args:
        novel: (K,) bool.
        base_value: For the other classes.
        novel_value: For novel classes.
        background_value: For a background column after the K; None for no such column.

    Returns:
        (K,) or (K + 1,) float32.
    """
    values = torch.where(novel, novel_value, base_value).float()
    if background_value is None:
        return values
    return torch.cat([values, values.new_tensor([background_value])])


def objectness_scores(logits: Tensor, rule: ObjectnessRule) -> Tensor:
    """(N,) objectness logits as a source (N, 1) for ``fuse``.

    ``raw_logit`` is RegionCLIP's own rule: the logit itself, without a sigmoid. Its published numbers depend
    on it: scores can exceed 1, and where the logit is negative the root is NaN and the proposal is dropped.

    Raises:
        ValueError: The rule is unknown.
    """
    if rule == "raw_logit":
        return logits[:, None]
    if rule == "sigmoid":
        return logits.sigmoid()[:, None]
    raise ValueError(f"unknown objectness rule {rule!r}; 'sigmoid' or 'raw_logit'")
