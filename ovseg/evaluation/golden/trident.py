"""Trident as its authors run it (YuHengsss/Trident); DINO's features and SAM's last block are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ovseg.dense.view import View
from ovseg.dense.windows import slide
from ovseg.evaluation.golden.case import Case
from ovseg.evaluation.golden.external import StoredTower
from ovseg.evaluation.golden.windows import decided, output_size, undecided
from ovseg.inference.steps import Floor, Pamr, Softmax
from ovseg.methods.trident import Trident
from ovseg.methods.trident.model import TridentSegmenter

__all__ = ["StoredEncoding", "outputs"]


@dataclass(frozen=True)
class StoredEncoding:
    """SAM's last block: values (heads, h * w, d) and attention (heads, h * w, h * w)."""

    grid: tuple[int, int]
    values: Tensor
    attention: Tensor

    def weights(self, rows: slice) -> Tensor:
        """Of some queries."""
        return self.attention[:, rows]

    def encode(self, image: Any) -> StoredEncoding:
        """The stored one, whatever the image."""
        return self


def outputs(case: Case) -> dict[str, Tensor]:
    """Windows in patches, their tokens, fused tokens, features, cosines; probabilities and labels."""
    model, image = _model(case), case.tensor("image")
    pixels, size = model.pixels(image)[0], output_size(case)
    view = View(pixels, slide(size), size, model.clip.mean, model.clip.std, batch_size=2)
    windows = model.windows(view)
    tokens = model.window_tokens(windows)
    fused = model.fuse(model.splice(tokens, windows.grid), model.encode(model.picture(view), view))
    features = model.features(image)
    out = {
        "window_grid": torch.tensor([len(windows.grid.tops), len(windows.grid.lefts)]),
        "window_locs": torch.tensor(list(windows.grid.boxes())) // model.stride,
        "window_tokens": tokens.flatten(2).transpose(1, 2),
        "fused_tokens": fused.flatten(1).T[None],
        "feat": features.patches,
        "logits": model.head(features, case.bank()),
    }
    if case.hp.get("post"):
        hp = case.hp
        refine = [Pamr(hp["pamr_steps"], tuple(hp["pamr_stride"]))] if hp.get("pamr_steps") else []
        rules = (*refine, Softmax(hp["logit_scale"]), Floor(hp.get("prob_thd", 0.0), label=0))
        out["pred"], out["probs"] = decided(case, [model.score_field(view, case.bank())], rules)
        out["pred.undecided"] = undecided(out["probs"])
    return out


def _model(case: Case) -> TridentSegmenter:
    hp, values = case.hp, case.tensor("ext_sam_v")[0]  # (heads, h, w, d)
    sam = StoredEncoding(
        (values.shape[1], values.shape[2]), values.flatten(1, 2), case.tensor("ext_sam_attn")[0]
    )
    method = Trident(
        StoredTower(case.tensor("ext_vfm"), stride=hp.get("vfm_patch", 16)),
        sam,
        hp["beta"],
        hp["gamma"],
        hp["slide_crop"],
        hp["slide_stride"],
        hp["cos_fac"],
        None if hp["refine_neg_cos"] else 0.6,
        swap_grid=True,
    )
    model = method.build(case.clip(), method.readout)
    assert isinstance(model, TridentSegmenter)
    return model
