"""CLIP-DINOiser: what it adds to the bare tower, and the memory of pooling over many patches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.benchmark.harness import compare, peak_memory, record
from ovseg.dense.operators import pool
from ovseg.methods.clip_dinoiser import CLIPDINOiser
from ovseg.methods.clip_dinoiser.model import DinoiserSegmenter
from ovseg.methods.maskclip import MaskCLIP
from ovseg.towers.clip import CLIP, architecture
from ovseg.vocab.text_bank import TextBank
from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["run"]

_ARCHITECTURE = "ViT-B-16"
_WORDS = 21
_PATCHES = 84  # along each side of an image of 1344 pixels


@torch.inference_mode()
def run() -> Iterator[dict[str, Any]]:
    """Yields ``clip_dinoiser.scores`` (448 pixels) and ``clip_dinoiser.pooling`` (1344 pixels)."""
    torch.manual_seed(0)
    clip, method = CLIP(architecture(_ARCHITECTURE)).eval(), CLIPDINOiser(uncertain_background=0)
    model = DinoiserSegmenter(clip, method, method.readout).eval()
    image = torch.randn(1, 3, 448, 448)
    rows = F.normalize(torch.randn(_WORDS, 1, 512), dim=-1)
    bank = TextBank(rows, True, torch.arange(_WORDS), Vocabulary.of([f"c{k}" for k in range(_WORDS)]))
    readout = MaskCLIP().readout
    # one gives scores, the other features: the difference of the results says nothing
    yield compare(
        "clip_dinoiser.scores",
        lambda: model(image, bank),
        lambda: clip.visual.forward_dense(image, readout),  # type: ignore[arg-type]
        repeats=7,
        difference=lambda ours, theirs: 0.0,
        architecture=_ARCHITECTURE,
        size=448,
    )
    features, guide = _inputs()
    yield compare(
        "clip_dinoiser.pooling",
        lambda: pool(features, guide, 0.2),
        lambda: _dense(features, guide, 0.2),
        repeats=3,
        patches=_PATCHES**2,
    )
    yield record(
        "clip_dinoiser.memory",
        peak_mb=round(peak_memory(_prepare) / 2**20, 1),
        dense_matrix_mb=round(4 * _PATCHES**4 / 2**20, 1),
        patches=_PATCHES**2,
    )


def _inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    size = (_PATCHES, _PATCHES)
    return (torch.randn(1, 512, *size, generator=generator), torch.randn(1, 256, *size, generator=generator))


def _prepare() -> Callable[[], Tensor]:
    features, guide = _inputs()
    return lambda: pool(features, guide, 0.2)


def _dense(features: Tensor, guide: Tensor, gamma: float) -> Tensor:
    unit = F.normalize(guide.flatten(2), dim=1)
    weights = unit.transpose(1, 2) @ unit
    weights = weights.masked_fill(weights < gamma, 0.0)
    pooled = features.flatten(2) @ weights.transpose(1, 2) / (weights.sum(dim=2)[:, None] + 1e-6)
    return pooled.view_as(features)
