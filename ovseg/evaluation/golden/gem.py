"""GEM as its authors run it (WalBouss/GEM)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ovseg.dense.readout import Readout
from ovseg.evaluation.golden.case import Case
from ovseg.evaluation.golden.windows import decided, fields
from ovseg.inference.steps import MinMax
from ovseg.methods.gem import GEM
from ovseg.methods.segmenter import Segmenter, cosine_scores

__all__ = ["outputs"]


def outputs(case: Case) -> dict[str, Tensor]:
    """Features and cosines of GEM's stream and of the plain one; full-size cosines and heat maps."""
    hp, clip, bank = case.hp, case.clip(), case.bank()
    method = GEM(hp["ss_attn_iter"], hp["ss_attn_temp"])
    model = method.build(clip, replace(method.readout, last_blocks=hp["depth"] - 1))
    assert isinstance(model, Segmenter)
    features = model.features(case.tensor("image"))
    plain = clip.visual.forward_dense(case.tensor("image"), Readout())  # type: ignore[arg-type]
    assert features.cls is not None
    parts = fields(case, model)
    return {
        "cls": features.cls,
        "feat": features.patches,
        "feat_ori": plain.patches,
        "logits": model.head(features, bank),
        "logits_ori": cosine_scores(plain.patches, bank.matrix),
        "up_logits": torch.stack([part.full() for part in parts]),
        "heat": decided(case, parts, (MinMax(),))[1],
    }
