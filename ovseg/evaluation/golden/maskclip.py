"""MaskCLIP's features as CLIP-DINOiser's authors compute them (wysoczanska/clip_dinoiser)."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ovseg.evaluation.golden.case import Case
from ovseg.methods.maskclip import MaskCLIP
from ovseg.methods.segmenter import Segmenter

__all__ = ["outputs"]


def outputs(case: Case) -> dict[str, Tensor]:
    """``tokens`` after the last LayerNorm, ``feat`` in the joint space, ``cos``, and softmax(100 cos)."""
    clip = case.clip()
    model, image = Segmenter(clip, MaskCLIP()), case.tensor("image")
    features = model.features(image)
    scores = model.head(features, case.bank())
    width = clip.visual.forward_dense(image, replace(model.readout, tail=False)).patches  # type: ignore[arg-type]
    tokens = clip.visual.ln_post(width.movedim(1, -1)).movedim(-1, 1)  # type: ignore[operator]
    return {
        "tokens": tokens,
        "feat": features.patches,
        "cos": scores,
        "logits": (100 * scores).softmax(dim=1),
    }
