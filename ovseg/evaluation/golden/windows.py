"""What the cases of the window protocols share: windows, upsampled scores, decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.dense.score_field import ScoreField
from ovseg.dense.view import View
from ovseg.dense.windows import Pad, slide
from ovseg.evaluation.golden.case import Case
from ovseg.inference.decision import decide
from ovseg.inference.steps import Floor, Pamr, SmallAreas, Softmax, Step
from ovseg.methods.segmenter import Segmenter
from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["attention_weights", "decided", "fields", "output_size", "sclip_outputs", "undecided"]


def attention_weights(model: Segmenter, image: Tensor) -> Tensor:
    """(B, heads, N, N): what the readout's attention makes of unit vectors as values."""
    attention, seen = model.readout.attention, []

    def look(q: Any, k: Any, v: Tensor, ctx: Any) -> Tensor:
        unit = torch.eye(v.shape[2]).expand(*v.shape[:2], -1, -1)
        seen.append(attention(q, k, unit, ctx))
        return v

    model.clip.visual.forward_dense(image, replace(model.readout, attention=look))  # type: ignore[arg-type]
    return seen[0]


def output_size(case: Case) -> tuple[int, int]:
    """(H, W) of the case's result."""
    height, width = case.hp.get("ori_shape", case.arrays["image"].shape[-2:])
    return height, width


def fields(
    case: Case, model: Any, size: tuple[int, int] | None = None, pad: Pad | None = None
) -> list[ScoreField]:
    """The score field of each image, resized to ``size``, by default that of the case's result."""
    image, bank = case.tensor("image"), case.bank()
    whole = (image.shape[2], image.shape[3])
    grid = slide(whole, case.hp.get("slide_crop") or None, case.hp.get("slide_stride"), pad)
    views = (
        View(one, grid, size or output_size(case), (0.0,) * 3, (1.0,) * 3, batch_size=2) for one in image
    )
    return [model.score_field(view, bank) for view in views]


def decided(
    case: Case, parts: Sequence[ScoreField], steps: Sequence[Step], vocabulary: Vocabulary | None = None
) -> tuple[Tensor, Tensor]:
    """Labels (B, 1, H, W) and scores of all classes (B, K, H, W)."""
    guides = F.interpolate(case.tensor("image"), output_size(case), mode="bilinear", align_corners=False)
    words = vocabulary or case.bank().vocabulary
    labels = [decide(part, steps, words, guide, class_scores=True) for part, guide in zip(parts, guides)]
    scores = torch.stack([label.class_scores for label in labels])  # type: ignore[misc]
    return torch.stack([label.label_map[None] for label in labels]), scores


def undecided(class_scores: Tensor) -> Tensor:
    """(B, 1, H, W) where the best two of (B, K, H, W) scores lie so near that a label proves nothing."""
    top = class_scores.topk(min(2, class_scores.shape[1]), dim=1).values
    lead = top[:, :1] - top[:, 1:]
    return (lead < 1e-5).any(dim=1, keepdim=True)


def sclip_outputs(case: Case, model: Segmenter, pad: Pad | None = None) -> dict[str, Tensor]:
    """Full-size scores, probabilities and labels as SCLIP's segmentor makes them.

    Without windows it brings the scores of patches to the size of the result at once, and refines nothing.
    """
    hp, refine = case.hp, []
    if hp.get("slide_crop"):
        parts = fields(case, model, pad=pad)
        refine = [Pamr(hp["pamr_steps"], tuple(hp["pamr_stride"]))] if hp.get("pamr_steps") else []
    else:
        scores = model(case.tensor("image"), case.bank())
        parts = [ScoreField.from_windows(one[None], slide(output_size(case))) for one in scores]
    areas = [SmallAreas(hp["area_thd"])] if hp.get("area_thd") is not None else []
    rules = (*refine, Softmax(hp["logit_scale"]), *areas, Floor(hp.get("prob_thd", 0.0), label=0))
    labels, probabilities = decided(case, parts, rules)
    words = Vocabulary.of([f"word {q}" for q in range(parts[0].num_words)])
    _, full = decided(case, parts, refine, words)
    return {
        "up_logits": full,
        "slide_logits": full,
        "probs": probabilities,
        "pred": labels,
        "pred.undecided": undecided(probabilities),
    }
