"""MaskCLIP as its authors run it in mmsegmentation (chongzhou96/MaskCLIP), ViT and ResNet."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ovseg.dense.windows import Pad
from ovseg.evaluation.golden.case import Case
from ovseg.methods.maskclip import MaskCLIP
from ovseg.methods.segmenter import Segmenter, cosine_scores

__all__ = ["outputs"]


def outputs(case: Case) -> dict[str, Tensor]:
    """``feat``, ``raw_logits`` = cosine, ``k`` = keys for smoothing, ``logits`` after the refinements."""
    image, is_vit = case.tensor("image"), "patch" in case.meta["arch"]
    clip = case.clip(ln_eps=1e-6) if is_vit else case.clip()
    if is_vit:  # their patch embedding pads
        image = Pad(case.meta["arch"]["patch"])(image)
    method = MaskCLIP(
        key_smoothing=case.hp.get("ks_thresh"),
        ks_axis="positions",
        prompt_denoising=case.hp.get("pd_thresh"),
        attention_pooling=case.hp.get("attn_pooling", False),
    )
    readout = replace(method.readout, taps=((-1, "k"),))
    model = Segmenter(clip, method, readout)
    features = model.features(image)
    out = {
        "feat": features.patches,
        "raw_logits": cosine_scores(features.patches, case.bank().matrix),
        "logits": model.head(features, case.bank()),
        "k": method.smoothing_keys(features, clip.visual),
    }
    if is_vit:
        width = clip.visual.forward_dense(image, replace(readout, tail=False)).patches  # type: ignore[arg-type]
        out["tokens"] = clip.visual.ln_post(width.movedim(1, -1)).movedim(-1, 1)  # type: ignore[operator]
    else:
        out["backbone_feat"] = clip.visual.stages(image)[-1]  # type: ignore[operator]
    return out
