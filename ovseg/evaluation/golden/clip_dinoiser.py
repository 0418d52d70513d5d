"""CLIP-DINOiser and its teacher as their authors run them (wysoczanska/clip_dinoiser)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ovseg.dense.operators import pool
from ovseg.dense.view import View
from ovseg.dense.windows import Pad, slide
from ovseg.evaluation.golden.case import Case
from ovseg.evaluation.golden.external import StoredTower
from ovseg.methods.clip_dinoiser import CLIPDINOiser, DinoCLIP
from ovseg.methods.clip_dinoiser.model import DinoCLIPSegmenter, DinoiserSegmenter
from ovseg.methods.clip_dinoiser.training import similarities
from ovseg.methods.segmenter import cosine_scores
from ovseg.towers.table import OPENAI_MEAN, OPENAI_STD

__all__ = ["normalised", "outputs", "stored_dino", "student"]


def outputs(case: Case) -> dict[str, Tensor]:
    """Features before and after pooling, the affinity, the background logits, cosines, probabilities."""
    return _teacher_outputs(case) if case.hp.get("teacher") else _student_outputs(case)


def student(case: Case) -> DinoiserSegmenter:
    """The model with the case's weights."""
    hp = case.hp
    where: dict[str, Any] = (
        {"guide": "final"} if hp["feats_idx"] == "final" else {"guide_block": hp["feats_idx"]}
    )
    method = CLIPDINOiser(
        gamma=hp["gamma"], delta=hp["delta"], uncertain_background=0 if hp["apply_found"] else None,
        channels=hp["in_dim"], kernel=hp["conv_kernel"], **where,
    )  # fmt: skip
    model = DinoiserSegmenter(case.clip(), method, method.readout)
    weights = {key.removeprefix("head/"): case.tensor(key) for key in case.arrays if key.startswith("head/")}
    model.load_state_dict({**model.state_dict(), **weights})
    return model.eval()


def normalised(case: Case) -> Tensor:
    """The stored image in [0, 1], padded and normalised by our own view."""
    pad, batch = Pad(case.meta["arch"]["patch"], before_norm=True), []
    for image in case.tensor("image01"):
        size = (image.shape[1], image.shape[2])
        batch.append(next(View(image, slide(size, pad=pad), size, OPENAI_MEAN, OPENAI_STD).batches()))
    return torch.cat(batch)


def stored_dino(case: Case) -> Tensor:
    """(B, D, h, w) what the teacher compares, from one raw output of DINO's qkv projection."""
    part = "qkv".index(case.hp["enc_type_feats"])
    tokens = case.tensor("ext_dino_qkv").chunk(3, dim=2)[part][:, 1:]
    return tokens.transpose(1, 2).unflatten(2, case.tensor("ext_found_logits").shape[2:])


def _student_outputs(case: Case) -> dict[str, Tensor]:
    model, image = student(case), normalised(case)
    raw = model.unpooled(image)
    guide, pooled = model.guide(raw), model.features(image)
    final = model.settings.guide == "final"
    return {
        "feat": raw.patches,
        "clip_inter": raw.patches if final else raw.taps[model.settings.guide_block, "ln_2"],
        "corrs": similarities(model.affinity(guide)).unflatten(2, raw.grid),
        "bkg": model.background_logits(guide),
        "feat_refined": pooled.patches,
        "cos": cosine_scores(pooled.patches, case.bank().matrix),
        "logits": model.head(pooled, case.bank()),
    }


def _teacher_outputs(case: Case) -> dict[str, Tensor]:
    hp, guide, found = case.hp, stored_dino(case), case.tensor("ext_found_logits")
    feature = hp["enc_type_feats"]
    tap = {(-1, feature): guide.flatten(2).transpose(1, 2)}
    method = DinoCLIP(
        gamma=hp["gamma"], delta=hp["delta"], uncertain_background=0 if hp["apply_found"] else None,
        auxiliary=StoredTower(guide, tap), feature=feature, saliency=lambda image01: found,
    )  # fmt: skip
    model = DinoCLIPSegmenter(case.clip(), method, method.readout).eval()
    image = normalised(case)
    raw, pooled = super(DinoCLIPSegmenter, model).features(image), model.features(image)
    cosine = similarities(guide)
    return {
        "feat": raw.patches,
        "corrs": cosine.masked_fill(cosine < hp["gamma"], 0.0).unflatten(2, raw.grid),
        "feat_refined": pool(raw.patches, model.guide(image), hp["gamma"]),
        "cos": cosine_scores(pooled.patches, case.bank().matrix),
        "logits": model(image, case.bank()),
    }
