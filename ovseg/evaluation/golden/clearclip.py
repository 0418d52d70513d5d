"""ClearCLIP and its variants as the authors run them (mc-lan/ClearCLIP)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ovseg.dense.attention import correlative, identity, query_key, query_query
from ovseg.dense.readout import AttentionFunction
from ovseg.dense.windows import Pad
from ovseg.evaluation.golden.case import Case
from ovseg.evaluation.golden.windows import sclip_outputs
from ovseg.methods.clearclip import ClearCLIP
from ovseg.methods.segmenter import Segmenter

__all__ = ["outputs"]

_ATTENTION: dict[str, AttentionFunction] = {
    "ClearCLIP": query_query,
    "SCLIP": correlative,
    "MaskCLIP": identity,
    "vanilla": query_key,
}


def outputs(case: Case) -> dict[str, Tensor]:
    """Tokens before the last LayerNorm, features, cosines; then full-size scores and labels."""
    keep, method = not case.hp["ignore_residual"], ClearCLIP()
    readout = replace(
        method.readout,
        attention=_ATTENTION[case.hp["model_type"]],
        residual="own" if keep else "none",
        mlp=keep,
        last_blocks=case.hp.get("last_n_layers", 1),
    )
    model, image = Segmenter(case.clip(), method, readout), case.tensor("image")
    features = model.features(image)
    width = model.clip.visual.forward_dense(image, replace(readout, tail=False))  # type: ignore[arg-type]
    assert width.cls is not None
    assert features.cls is not None
    out = {
        "tokens_pre_ln_post": torch.cat(
            [width.cls[:, None], width.patches.flatten(2).transpose(1, 2)], dim=1
        ),
        "cls": features.cls,
        "feat": features.patches,
        "logits": model.head(features, case.bank()),
    }
    if case.hp.get("post"):
        out |= sclip_outputs(case, model, Pad(case.meta["arch"]["patch"], side="centre"))
    return out
