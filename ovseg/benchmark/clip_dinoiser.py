"""CLIP-DINOiser: what it adds to the bare tower, pooling over many patches, and a step of its training.

Where something is measured against a part of it, ``ratio`` is the part's share of the time: at least 0.87 for
at most 15 % more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.benchmark.harness import compare, peak_memory, record
from ovseg.dense.operators import pool
from ovseg.methods.clip_dinoiser import CLIPDINOiser
from ovseg.methods.clip_dinoiser.found import Found
from ovseg.methods.clip_dinoiser.model import DinoiserSegmenter
from ovseg.methods.clip_dinoiser.teachers import Teachers
from ovseg.methods.clip_dinoiser.training import dinoiser_losses, optimiser
from ovseg.methods.maskclip import MaskCLIP
from ovseg.towers.auxiliary import auxiliary_info
from ovseg.towers.clip import CLIP, architecture
from ovseg.towers.dino import SelfSupervisedViT, create_vit
from ovseg.vocab.text_bank import TextBank
from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["ROWS", "run"]

_ARCHITECTURE = "ViT-B-16"
_SIZE = 448
_WORDS = 21
_PATCHES = 84  # along each side of an image of 1344 pixels
_BATCH = 16


ROWS = ("scores", "pooling", "memory", "training")
"""What ``run`` measures."""


def run(rows: Collection[str] = ROWS) -> Iterator[dict[str, Any]]:
    """Yields ``clip_dinoiser.scores`` and ``.training`` (448 pixels), ``.pooling`` and ``.memory`` (1344)."""
    torch.manual_seed(0)
    clip, method = CLIP(architecture(_ARCHITECTURE)).eval(), CLIPDINOiser(uncertain_background=0)
    model = DinoiserSegmenter(clip, method, method.readout).eval()
    if "scores" in rows:
        yield _scores(model)
    if "pooling" in rows:
        yield _pooling()
    if "memory" in rows:
        peak, dense = peak_memory(_prepare) / 2**20, 4 * _PATCHES**4 / 2**20
        yield record(
            "clip_dinoiser.memory",
            peak_mb=round(peak, 1),
            dense_matrix_mb=round(dense, 1),
            patches=_PATCHES**2,
        )
    if "training" in rows:
        yield _training(model)


@torch.inference_mode()
def _scores(model: DinoiserSegmenter) -> dict[str, Any]:
    """Everything up to the scores, against the bare tower's dense forward."""
    image = torch.randn(1, 3, _SIZE, _SIZE)
    rows = F.normalize(torch.randn(_WORDS, 1, 512), dim=-1)
    bank = TextBank(rows, True, torch.arange(_WORDS), Vocabulary.of([f"c{k}" for k in range(_WORDS)]))
    return compare(
        "clip_dinoiser.scores",
        lambda: model(image, bank),
        lambda: _tower(model, image),
        repeats=15,
        difference=None,  # a whole against a part of it
        architecture=_ARCHITECTURE,
        size=_SIZE,
    )


@torch.inference_mode()
def _pooling() -> dict[str, Any]:
    features, guide = _inputs()
    return compare(
        "clip_dinoiser.pooling",
        lambda: pool(features, guide, 0.2),
        lambda: _dense(features, guide, 0.2),
        repeats=3,
        patches=_PATCHES**2,
    )


def _training(model: DinoiserSegmenter) -> dict[str, Any]:
    """A whole step, against the forwards of the tower and the published teachers on the same batch."""
    dino, small = _random_dino("dino_vit_b16"), _random_dino("dino_vit_s8")
    teachers = Teachers(dino, Found(small).eval())
    image = torch.rand(_BATCH, 3, _SIZE, _SIZE)
    steps, _ = optimiser(model)

    def step() -> None:
        targets = teachers(image, (_SIZE // 16, _SIZE // 16))
        losses = dinoiser_losses(model, image, targets.joined, targets.objects)
        steps.zero_grad()
        sum(losses.values(), torch.zeros(())).backward()
        steps.step()

    @torch.no_grad()
    def forwards() -> None:
        _tower(model, image)
        dino(image)
        small(image)

    return compare(
        "clip_dinoiser.training",
        step,
        forwards,
        repeats=2,
        difference=None,  # a whole against a part of it
        architecture=_ARCHITECTURE,
        size=_SIZE,
        batch=_BATCH,
    )


def _tower(model: DinoiserSegmenter, image: Tensor) -> Tensor:
    """MaskCLIP's dense forward, nothing else."""
    visual: Any = model.clip.visual
    return visual.forward_dense(image, MaskCLIP().readout).patches


def _random_dino(name: str) -> SelfSupervisedViT:
    """The architecture of published weights, without them."""
    info = replace(auxiliary_info(name), sources=())
    vit: nn.Module = create_vit(info)
    return SelfSupervisedViT(vit.eval().requires_grad_(False), info)


def _inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    size = (_PATCHES, _PATCHES)
    return (torch.randn(1, 512, *size, generator=generator), torch.randn(1, 256, *size, generator=generator))


def _prepare() -> Callable[[], Tensor]:
    features, guide = _inputs()
    return torch.inference_mode()(lambda: pool(features, guide, 0.2))


def _dense(features: Tensor, guide: Tensor, gamma: float) -> Tensor:
    unit = F.normalize(guide.flatten(2), dim=1)
    weights = unit.transpose(1, 2) @ unit
    weights = weights.masked_fill(weights < gamma, 0.0)
    pooled = features.flatten(2) @ weights.transpose(1, 2) / (weights.sum(dim=2)[:, None] + 1e-6)
    return pooled.view_as(features)
