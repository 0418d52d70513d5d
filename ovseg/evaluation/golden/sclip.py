"""SCLIP as its authors run it (wangf3014/SCLIP)."""

from __future__ import annotations

from torch import Tensor

from ovseg.evaluation.golden.case import Case
from ovseg.evaluation.golden.windows import attention_weights, sclip_outputs
from ovseg.methods.sclip import SCLIP
from ovseg.methods.segmenter import Segmenter

__all__ = ["outputs"]


def outputs(case: Case) -> dict[str, Tensor]:
    """Attention, features, cosines; then full-size scores, probabilities and labels."""
    model, image = Segmenter(case.clip(), SCLIP()), case.tensor("image")
    features = model.features(image)
    assert features.cls is not None
    out = {
        "attn": attention_weights(model, image),
        "cls": features.cls,
        "feat": features.patches,
        "logits": model.head(features, case.bank()),
    }
    return out | sclip_outputs(case, model) if case.hp.get("post") else out
