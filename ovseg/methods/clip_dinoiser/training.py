"""What CLIP-DINOiser learns from: DINO's similarities and FOUND's objects, on images without labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.methods.clip_dinoiser.model import DinoiserSegmenter

__all__ = ["affinity_target", "dinoiser_losses", "optimiser", "parameter_groups", "similarities"]


def similarities(guide: Tensor) -> Tensor:
    """Cosine similarities of all patches: (B, D, h, w) to (B, N, N)."""
    unit = F.normalize(guide.flatten(2), dim=1)
    return unit.transpose(1, 2) @ unit


def affinity_target(guide: Tensor, gamma: float | None = 0.2) -> Tensor:
    """Which patches the teacher joins: (B, D, h, w) keys or values of DINO to (B, N, N) zeros and ones."""
    cosine = similarities(guide)
    return (cosine >= gamma if gamma else cosine > 0).to(guide.dtype)


def dinoiser_losses(
    model: DinoiserSegmenter, image: Tensor, joined: Tensor, objects: Tensor
) -> dict[str, Tensor]:
    """Losses of one batch; CLIP gets no gradient.

    As in the authors' code the clipped similarity itself is taken for a logit, so that no prediction is below
    one half.

    Args:
        model: The student.
        image: (B, 3, H, W), normalised.
        joined: (B, N, N) from ``affinity_target``, or bool.
        objects: (B, 1, h, w) probability of being an object (FOUND), above one half counts; or bool.

    Returns:
        ``loss_affinity`` and ``loss_background``, scalars; their sum is the loss.
    """
    with torch.no_grad():
        guide = model.guide(model.unpooled(image))
    cosine = similarities(model.affinity(guide)).clamp(min=0)
    return {
        "loss_affinity": F.binary_cross_entropy_with_logits(cosine, joined.to(cosine.dtype)),
        "loss_background": F.binary_cross_entropy_with_logits(
            model.background_logits(guide), (objects > 0.5).to(guide.dtype)
        ),
    }


def parameter_groups(
    model: DinoiserSegmenter, affinity_lr: float = 5e-5, background_lr: float = 1e-2
) -> list[dict[str, Any]]:
    """The two convolutions, each with its own rate."""
    rates = ((model.obj_proj, affinity_lr), (model.bkg_decoder, background_lr))
    return [{"params": list(module.parameters()), "lr": rate} for module, rate in rates]


def optimiser(
    model: DinoiserSegmenter,
    affinity_lr: float = 5e-5,
    background_lr: float = 1e-2,
    milestones: Iterable[int] = (5000,),
    gamma: float = 0.1,
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW on the two convolutions, each with its own rate, both multiplied at milestones (iterations)."""
    model.requires_grad_(False)
    groups = parameter_groups(model, affinity_lr, background_lr)
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
    steps = torch.optim.AdamW(groups)
    return steps, torch.optim.lr_scheduler.MultiStepLR(steps, list(milestones), gamma)
