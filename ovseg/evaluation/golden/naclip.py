"""NACLIP and its ablations as the authors run them (sinahmr/NACLIP)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ovseg.dense.attention import correlative, gaussian_bias, key_key, query_key
from ovseg.dense.readout import AttentionContext, AttentionFunction
from ovseg.dense.score_field import ScoreField
from ovseg.dense.windows import slide
from ovseg.evaluation.golden.case import Case
from ovseg.evaluation.golden.windows import attention_weights, decided, fields, undecided
from ovseg.inference.steps import Floor, Pamr, Softmax
from ovseg.methods.naclip import NACLIP
from ovseg.methods.segmenter import Segmenter

__all__ = ["outputs"]

_ATTENTION: dict[str, AttentionFunction] = {"kk": key_key, "csa": correlative, "vanilla": query_key}


def outputs(case: Case) -> dict[str, Tensor]:
    """Attention, bias, features, cosines, upsampled cosines; then probabilities and labels."""
    model, image = _model(case), case.tensor("image")
    features = model.features(image)
    scores = model.head(features, case.bank())
    size = (image.shape[2], image.shape[3])
    assert features.cls is not None
    out = {
        "attn": attention_weights(model, image),
        "cls": features.cls,
        "feat": features.patches,
        "logits": scores,
        "up_logits": torch.stack([ScoreField.from_windows(one[None], slide(size)).full() for one in scores]),
    }
    if case.hp["gaussian_std"]:
        context = AttentionContext(features.grid, 1.0)
        out["gauss_bias"] = gaussian_bias(context, case.hp["gaussian_std"], image)
    return out | _decided(case, model, size) if case.hp.get("post") else out


def _model(case: Case) -> Segmenter:
    strategy, whole_block = case.hp["attn_strategy"], case.hp["arch"] == "vanilla"
    method = NACLIP(case.hp["gaussian_std"] or 5.0, neighbours_only=strategy == "nonly")
    changes: dict[str, Any] = {"residual": "own", "mlp": True} if whole_block else {}
    if strategy in _ATTENTION:
        changes["attention"] = _ATTENTION[strategy]
    return Segmenter(case.clip(), method, replace(method.readout, **changes))


def _decided(case: Case, model: Segmenter, size: tuple[int, int]) -> dict[str, Tensor]:
    hp, parts = case.hp, fields(case, model)
    refine = [Pamr(hp["pamr_steps"], tuple(hp["pamr_stride"]))] if hp.get("pamr_steps") else []
    floor = Floor(hp.get("prob_thd", 0.0), label=0)
    labels, _ = decided(case, parts, (*refine, Softmax(hp["logit_scale"]), floor))
    # their probabilities are made to sum to one over classes only after the threshold
    _, probabilities = decided(case, parts, (*refine, Softmax(hp["logit_scale"], over="classes")))
    return {
        "slide_logits": torch.stack([part.full() for part in fields(case, model, size)]),
        "probs": probabilities,
        "pred": labels,
        "pred.undecided": undecided(probabilities),
    }
