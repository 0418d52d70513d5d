"""CLIPtrase as its authors run it (leaves162/CLIPtrase)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ovseg.dense.clusters import cluster_kinship
from ovseg.dense.features import DenseFeatures
from ovseg.dense.score_field import ScoreField
from ovseg.dense.windows import slide
from ovseg.evaluation.golden.case import Case
from ovseg.evaluation.golden.windows import decided, fields, output_size, undecided
from ovseg.inference.steps import RegionVote
from ovseg.methods.cliptrase import CLIPtrase
from ovseg.methods.cliptrase.model import ClusterSegmenter, self_correlation
from ovseg.methods.segmenter import cosine_scores

__all__ = ["outputs"]

_SCALE = 100.0


def outputs(case: Case) -> dict[str, Tensor]:
    """Attention of all blocks, features, scaled cosines; then clusters, labels before and after the vote."""
    hp, clip = case.hp, case.clip()
    method = CLIPtrase(hp.get("eps"), hp.get("min_samples"), cls_weighting=hp.get("dataset") == "VOC20")
    depth = len(clip.visual.blocks)  # type: ignore[arg-type]
    plain = [(i, "scores") for i in range(depth - 2)]
    late = [(i, site) for i in (depth - 2, depth - 1) for site in "qkv"]
    readout = replace(method.readout, taps=(*method.readout.taps, *plain, *late))
    model = ClusterSegmenter(clip, method, readout)
    features = model.features(case.tensor("image"))
    assert features.cls is not None
    out = {
        "attn": _attention(features, depth, case.meta["arch"]["heads"]),
        "cls": features.cls / features.cls.norm(dim=1, keepdim=True),
        "feat": features.patches / features.patches.norm(dim=1, keepdim=True),
        "logits": _SCALE * cosine_scores(features.patches, case.tensor("text")),
    }
    return out | _clustered(case, model, features) if hp.get("cluster") else out


def _attention(features: DenseFeatures, depth: int, heads: int) -> Tensor:
    """(blocks, B, N, N) as their blocks return it."""
    early = [features.taps[i, "scores"].mean(dim=1) for i in range(depth - 2)]
    late = [
        self_correlation((features.taps[i, site] for site in "qkv"), heads) for i in (depth - 2, depth - 1)
    ]
    return torch.stack(early + late)


def _clustered(case: Case, model: ClusterSegmenter, features: DenseFeatures) -> dict[str, Tensor]:
    affinity, clusters = model.clusters(features)
    parts = fields(case, model)
    before, scores = decided(case, parts, ())
    after, _ = decided(case, parts, (RegionVote(),))
    out = {
        "attn_denoised": affinity,
        "labels": clusters,
        "pred_raw": before[:, 0],
        "pred_raw.undecided": undecided(scores)[:, 0],
        "pred": after[:, 0],
    }
    if clusters.max() < 0:
        out["pred.undecided"] = out["pred_raw.undecided"]
    else:
        kinship = ScoreField.from_windows(
            cluster_kinship(affinity, clusters, features.grid)[None], slide(output_size(case))
        )
        out["pred.undecided"] = undecided(kinship.full()[None])[:, 0]
    return out
