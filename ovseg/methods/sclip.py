"""SCLIP: Wang, Mei, Yuille, Rethinking Self-Attention for Dense Vision-Language Inference, ECCV 2024.

In the last block a token attends to those with like queries, and to those with like keys (correlative
self-attention). The two are added and not averaged: next to the residual, which stays, the
attention counts twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from ovseg.dense.attention import correlative
from ovseg.dense.readout import Readout
from ovseg.methods.method import EMOJI_VITS, Method
from ovseg.methods.sclip_protocols import protocols_of, sclip_protocol

__all__ = ["SCLIP"]

# ViT-B/16: what the authors' code gives with its settings; the paper itself has 0.3 to 3 points less.
_MIOU = {
    "voc21": {"vit_b16.openai": 59.63, "vit_l14.openai": 44.4},
    "context60": {"vit_b16.openai": 31.74, "vit_l14.openai": 22.3},
    "coco_object": {"vit_b16.openai": 33.52, "vit_l14.openai": 24.9},
    "voc20": {"vit_b16.openai": 81.54, "vit_l14.openai": 60.3},
    "context59": {"vit_b16.openai": 34.46, "vit_l14.openai": 20.5},
    "coco_stuff171": {"vit_b16.openai": 22.77, "vit_l14.openai": 13.1},
    "cityscapes": {"vit_b16.openai": 32.34, "vit_l14.openai": 17.0},
    "ade150": {"vit_b16.openai": 16.45, "vit_l14.openai": 7.1},
    "coco_stuff10k": {"vit_b16.openai": 25.91},
}


@dataclass(frozen=True)
class SCLIP(Method):
    """Residual and MLP of the last block stay."""

    name = "sclip"
    title = "SCLIP"
    paper = "Wang, Mei, Yuille, Rethinking Self-Attention for Dense Vision-Language Inference, ECCV 2024"
    reference = "wangf3014/SCLIP"
    code_licence = "none"
    towers = (
        *EMOJI_VITS,
        "vit_b32.openai",
        "vit_b16.openai",
        "vit_b16.laion2b",
        "vit_b16.datacomp",
        "vit_b16.metaclip",
        "vit_b16.dfn",
        "vit_l14.openai",
    )
    protocols = protocols_of(
        sclip_protocol("voc21", scale=65.0, floor=0.1, small_areas=0.1),
        sclip_protocol("context60", scale=50.0, floor=0.1),
        sclip_protocol("coco_object", scale=50.0, floor=0.1),
        sclip_protocol("voc20"),
        sclip_protocol("context59"),
        sclip_protocol("coco_stuff171", short=448),
        sclip_protocol("cityscapes", short=560),
        sclip_protocol("ade150"),
        sclip_protocol("coco_stuff10k", words="coco_stuff171.sclip"),
        miou=_MIOU,
    )

    @property
    def readout(self) -> Readout:
        """Correlative self-attention."""
        return Readout(correlative, pos_embed="bicubic_offset")
