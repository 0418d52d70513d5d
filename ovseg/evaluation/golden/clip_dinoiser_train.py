"""Training steps of CLIP-DINOiser as its authors make them: losses, gradients, weights afterwards."""

from __future__ import annotations

import torch
from torch import Tensor

from ovseg.evaluation.golden.case import Case
from ovseg.evaluation.golden.clip_dinoiser import normalised, stored_dino, student
from ovseg.methods.clip_dinoiser.model import DinoiserSegmenter
from ovseg.methods.clip_dinoiser.training import affinity_target, dinoiser_losses, optimiser, similarities

__all__ = ["outputs"]


def outputs(case: Case) -> dict[str, Tensor]:
    """The same batch at every step."""
    hp, model, image = case.hp, student(case), normalised(case)
    guide, objects = stored_dino(case), case.tensor("ext_found_logits").sigmoid()
    cosine = similarities(guide)
    raw = model.unpooled(image)
    own = model.guide(raw)
    out = {
        "feat": raw.patches,
        "corrs": similarities(model.affinity(own)).unflatten(2, raw.grid),
        "bkg": model.background_logits(own),
        "dino_corrs": cosine.masked_fill(cosine < hp["gamma"], 0.0).unflatten(2, raw.grid),
        "found_prob": objects,
    }
    out |= _steps(case, model, image, affinity_target(guide, hp["gamma"]), objects)
    return {name: value.detach() for name, value in out.items()}


@torch.enable_grad()
def _steps(
    case: Case, model: DinoiserSegmenter, image: Tensor, joined: Tensor, objects: Tensor
) -> dict[str, Tensor]:
    hp = case.hp
    rates, milestones = (hp["corr_lr"], hp["found_lr"]), hp["milestones"]
    steps, schedule = optimiser(model, *rates, milestones, hp["step_lr_gamma"])
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    out: dict[str, Tensor] = {}
    history: list[Tensor] = []
    gradients: dict[str, Tensor] = {}
    for step in range(1, hp["steps"] + 1):
        losses = dinoiser_losses(model, image, joined, objects)
        history += [losses["loss_affinity"].detach(), losses["loss_background"].detach()]
        if step == 1:
            sum(losses.values(), torch.zeros(())).backward()
            gradients = {name: p.grad.clone() for name, p in learned.items() if p.grad is not None}
            out |= {f"grad/{name}": gradient for name, gradient in gradients.items()}
            out |= {"loss_dino": history[0], "loss_found": history[1]}
        # The stored weights come from the first step's gradients at every step: with these all agree to 1e-7,
        # with fresh ones those elements whose gradient changes sign do not. Our training makes fresh ones.
        for name, parameter in learned.items():
            parameter.grad = gradients[name].clone()
        steps.step()
        schedule.step()
        out[f"losses{step}"] = torch.stack(history)
        out |= {f"after{step}/{name}": p.detach().clone() for name, p in learned.items()}
    return out
