"""Regions against words: cosine similarity, a background column, classes left out of training."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.vocab.text_bank import TextBank

__all__ = ["Background", "class_rows", "mask_classes", "region_logits", "region_scores"]

Background = Literal["zero", "learned", "word", "none"]


def class_rows(bank: TextBank, background: Tensor | None = None, policy: Background = "zero") -> Tensor:
    """The rows that regions are compared with, the background's last.

    Args:
        bank: Q words, averaged over templates.
        background: (C,) of ``learned`` (a parameter; it is normalised here) and ``word`` (the embedding of
            "background" through the same templates).
        policy: ``zero``: a row of zeros, so that its logit is exactly 0 (RegionCLIP, CORA); ``learned``
            (ViLD, DetPro, BARON); ``word`` (F-ViT); ``none``: no row (sigmoid and query detectors).

    Returns:
        (Q + 1, C), unit rows but for the zeros; (Q, C) with ``none``.

    Raises:
        ValueError: The policy is unknown, or it and ``background`` do not go together.
    """
    rows = bank.unit[:, 0]
    if policy == "none" and background is None:
        return rows
    if policy == "zero" and background is None:
        return torch.cat([rows, rows.new_zeros(1, rows.shape[1])])
    if policy in ("learned", "word") and background is not None:
        return torch.cat([rows, F.normalize(background.to(rows), dim=-1)[None]])
    raise ValueError(
        f"background policy {policy!r} {'with' if background is not None else 'without'} a background row: "
        "'learned' and 'word' need one, 'zero' and 'none' take none"
    )


def region_logits(regions: Tensor, rows: Tensor, scale: float | Tensor = 100.0) -> Tensor:
    """Cosine similarity times a scale.

    Args:
        regions: (N, C), of any length.
        rows: (K + 1, C) of ``class_rows``: used as they are, so that the zero row keeps its logit 0.
        scale: One over the temperature.

    Returns:
        (N, K + 1).
    """
    # On the regions, of which there are fewer numbers than of logits.
    return (F.normalize(regions, dim=-1) * scale) @ rows.T


def mask_classes(logits: Tensor, allowed: Tensor) -> Tensor:
    """Takes classes out of a softmax: their probability is 0, their gradient exactly 0.

    Args:
        logits: (N, K + 1).
        allowed: (K,) bool, e.g. true for base classes. The columns beyond K (background) stay.
    """
    out = ~F.pad(allowed, (0, logits.shape[1] - len(allowed)), value=True)
    return logits.masked_fill(out, -torch.inf)


def region_scores(logits: Tensor, word_to_class: Tensor, classes: int) -> Tensor:
    """Logits of words to probabilities of classes, the background's last.

    Args:
        logits: (N, Q + 1), background last.
        word_to_class: (Q,).
        classes: K.

    Returns:
        (N, K + 1) softmax over all words; a class takes the best of its words.
    """
    probabilities = logits.float().softmax(dim=1)
    if len(word_to_class) == classes and torch.equal(
        word_to_class, torch.arange(classes, device=word_to_class.device)
    ):
        return probabilities
    index = F.pad(word_to_class, (0, 1), value=classes).expand(len(logits), -1)
    scores = probabilities.new_zeros(len(logits), classes + 1)
    return scores.scatter_reduce(1, index, probabilities, "amax")
