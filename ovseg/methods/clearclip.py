"""ClearCLIP: Lan et al., Decomposing CLIP Representations for Dense Vision-Language Inference, ECCV 2024.

The residual of the last block carries what CLIP knows of the image as a whole, and drowns what its attention
knows of places. So it goes, and the MLP with it; tokens attend to those with like queries.
"""

from __future__ import annotations

from dataclasses import dataclass

from ovseg.dense.attention import query_query
from ovseg.dense.readout import Readout
from ovseg.dense.windows import Pad
from ovseg.inference.protocol import Protocol
from ovseg.methods.method import EMOJI_VITS, Method
from ovseg.methods.sclip_protocols import protocols_of, sclip_protocol

__all__ = ["ClearCLIP"]

_TOWERS = ("vit_b16.openai", "vit_l14.openai", "vit_b16.laion2b", "vit_b16.metaclip")
_MIOU = {
    "voc21": dict(zip(_TOWERS, (51.8, 48.7))),
    "context60": dict(zip(_TOWERS, (32.6, 28.3))),
    "coco_object": dict(zip(_TOWERS, (33.0, 29.7))),
    "voc20": dict(zip(_TOWERS, (80.9, 80.0, 81.4, 78.3))),
    "context59": dict(zip(_TOWERS, (35.9, 29.6, 34.1, 34.8))),
    "coco_stuff171": dict(zip(_TOWERS, (23.9, 19.9, 23.1, 23.5))),
    "cityscapes": dict(zip(_TOWERS, (30.0, 27.9, 31.8, 27.9))),
    "ade150": dict(zip(_TOWERS, (16.7, 15.0, 18.9, 17.4))),
}


def clearclip_protocol(
    name: str, *, words: str | None = None, floor: float = 0.0, windows: tuple[int, int] = (448, 224)
) -> Protocol:
    """Larger images and windows than SCLIP's, no synonyms, windows padded on all sides to whole patches."""
    return sclip_protocol(
        name, words=words, short=448, windows=windows, scale=50.0, floor=floor, pad=Pad(16, side="centre")
    )


@dataclass(frozen=True)
class ClearCLIP(Method):
    """The variants of the authors' code are settings of the readout.

    ``affinity`` = ``query_key`` (their "vanilla"), ``identity`` ("MaskCLIP") or ``correlative`` ("SCLIP");
    ``residual="own", mlp=True`` keeps both; ``last_blocks`` is their ``last_n_layers``: the rewritten blocks
    are summed while the plain path goes on.
    """

    name = "clearclip"
    title = "ClearCLIP"
    paper = "Lan et al., Decomposing CLIP Representations for Dense Vision-Language Inference, ECCV 2024"
    reference = "mc-lan/ClearCLIP"
    code_licence = "NTU S-Lab 1.0 (non-commercial)"
    towers = (
        *EMOJI_VITS,
        "vit_b32.openai",
        "vit_b16.openai",
        "vit_b16.laion2b",
        "vit_b16.datacomp",
        "vit_b16.metaclip",
        "vit_b16.dfn",
        "vit_l14.openai",
        "vit_l14.laion2b",
    )
    protocols = protocols_of(
        clearclip_protocol("voc21", words="voc21.clearclip", floor=0.5),
        clearclip_protocol("context60", floor=0.15),
        clearclip_protocol("coco_object", words="coco_object.clearclip", floor=0.4),
        clearclip_protocol("voc20", words="voc20.clearclip"),
        clearclip_protocol("context59"),
        clearclip_protocol("coco_stuff171"),
        clearclip_protocol("cityscapes", windows=(224, 224)),
        clearclip_protocol("ade150"),
        miou=_MIOU,
    )

    @property
    def readout(self) -> Readout:
        """Query-query attention alone."""
        return Readout(query_query, residual="none", mlp=False, stream="parallel", pos_embed="bicubic_offset")
