"""ProxyCLIP as its authors run it (mc-lan/ProxyCLIP); the auxiliary features are stored."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ovseg.dense.readout import AttentionContext
from ovseg.dense.windows import Pad
from ovseg.evaluation.golden.case import Case
from ovseg.evaluation.golden.external import StoredTower
from ovseg.evaluation.golden.windows import sclip_outputs
from ovseg.methods.proxyclip import ProxyCLIP
from ovseg.methods.proxyclip.model import ProxySegmenter

__all__ = ["outputs"]


def outputs(case: Case) -> dict[str, Tensor]:
    """Attention, tokens before the last LayerNorm, features, cosines; then what SCLIP's segmentor makes."""
    windows = bool(case.hp.get("slide_crop"))
    method = ProxyCLIP(
        StoredTower(case.tensor("ext_feats")),
        case.hp["beta"],
        case.hp["gamma"],
        mean_over="image" if windows else "batch",  # theirs come one by one
        swap_grid=not case.hp.get("fix_grid", False),
    )
    out = {} if windows else _features(case, method)
    if case.hp.get("post"):
        out |= sclip_outputs(case, _model(case, method), Pad(56, side="centre"))
    return out


def _features(case: Case, method: ProxyCLIP) -> dict[str, Tensor]:
    image, model = case.tensor("image"), _model(case, method)
    width = _model(case, method, tail=False).features(image)
    features = model.features(image)
    return {
        "attn": _attention(method, case.tensor("ext_feats")),
        "tokens_pre_ln_post": width.patches.flatten(2).transpose(1, 2),
        "feat": features.patches,
        "logits": model.head(features, case.bank()),
    }


def _model(case: Case, method: ProxyCLIP, tail: bool = True) -> ProxySegmenter:
    return method.build(case.clip(), replace(method.readout, tail=tail))  # type: ignore[return-value]


def _attention(method: ProxyCLIP, guide: Tensor) -> Tensor:
    """(B, 1, N, N) weights on the grid of the guide: what becomes of unit vectors as values."""
    grid = (guide.shape[2], guide.shape[3])
    values = torch.eye(grid[0] * grid[1]).expand(len(guide), 1, -1, -1)
    attention = replace(method, swap_grid=False).readout.attention
    return attention(None, None, values, AttentionContext(grid, 1.0, 0, extra={"features": guide}))[0]
