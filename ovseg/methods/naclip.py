"""NACLIP: Hajimiri, Ben Ayed, Dolz, Pay Attention to Your Neighbours, WACV 2025.

A patch should look at what is like it, and at what is near it. In the last block keys attend to keys, and a
Gaussian of the distance is added to the logits. Residual and MLP are left out (the "reduced" architecture).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ovseg._lazy import F, torch
from ovseg.dense.attention import gaussian_bias
from ovseg.dense.readout import Readout
from ovseg.inference.protocol import Protocol
from ovseg.inference.steps import Pamr, Softmax
from ovseg.methods.method import EMOJI_PROTOCOL, EMOJI_VITS, Method
from ovseg.methods.sclip_protocols import protocols_of, sclip_protocol

if TYPE_CHECKING:
    from torch import Tensor

    from ovseg.dense.readout import AttentionContext

__all__ = ["NACLIP", "NearKeys", "NearOnly"]


@dataclass(frozen=True)
class NearKeys:
    """softmax(k k^T / sqrt d + w) v, with w a Gaussian of the distance of two patches.

    Attributes:
        std: Deviation in patches.
    """

    inputs: ClassVar[str] = "kv"
    std: float

    def __call__(self, q: None, k: Tensor, v: Tensor, ctx: AttentionContext) -> Tensor:
        """Mixed values (B, heads, N, d)."""
        return F.scaled_dot_product_attention(k, k, v, attn_mask=gaussian_bias(ctx, self.std, k))


@dataclass(frozen=True)
class NearOnly:
    """softmax(c w) v: distance alone, times the mean of |q| |k| / sqrt d over heads and pairs (an ablation).

    Attributes:
        std: Deviation in patches.
    """

    inputs: ClassVar[str] = "qkv"
    std: float

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, ctx: AttentionContext) -> Tensor:
        """Mixed values (B, heads, N, d)."""
        lengths = q.norm(dim=-1).mean(dim=-1) * k.norm(dim=-1).mean(dim=-1)  # (B, heads)
        strength = ctx.scale * lengths.mean(dim=1)
        weights = (strength[:, None, None] * gaussian_bias(ctx, self.std, q)).softmax(dim=-1)
        return torch.einsum("bij,bhjd->bhid", weights, v)


_MIOU = {  # with PAMR
    "voc21": {"vit_b16.openai": 64.07},
    "context60": {"vit_b16.openai": 34.99},
    "coco_object": {"vit_b16.openai": 36.19},
    "voc20": {"vit_b16.openai": 83.03},
    "context59": {"vit_b16.openai": 38.35},
    "coco_stuff171": {"vit_b16.openai": 25.69},
    "cityscapes": {"vit_b16.openai": 38.27},
    "ade150": {"vit_b16.openai": 19.05},
    "voc21_no_pamr": {"vit_b16.openai": 58.9, "vit_l14.openai": 52.2},
    "context60_no_pamr": {"vit_b16.openai": 32.2, "vit_l14.openai": 28.7},
    "coco_object_no_pamr": {"vit_b16.openai": 33.2, "vit_l14.openai": 29.9},
    "voc20_no_pamr": {"vit_b16.openai": 79.7, "vit_l14.openai": 78.7},
    "context59_no_pamr": {"vit_b16.openai": 35.2, "vit_l14.openai": 32.1},
    "coco_stuff171_no_pamr": {"vit_b16.openai": 23.3, "vit_l14.openai": 21.4},
    "cityscapes_no_pamr": {"vit_b16.openai": 35.5, "vit_l14.openai": 31.4},
    "ade150_no_pamr": {"vit_b16.openai": 17.4, "vit_l14.openai": 17.3},
}
_PAMR = Pamr(10, (8, 16))
_PAPER = (
    sclip_protocol("voc21", windows=None, floor=0.1, pamr=_PAMR),
    sclip_protocol("context60", floor=0.1, pamr=_PAMR),
    sclip_protocol("coco_object", floor=0.1, pamr=_PAMR),
    sclip_protocol("voc20", windows=None, pamr=_PAMR),
    sclip_protocol("context59", pamr=_PAMR),
    sclip_protocol("coco_stuff171", pamr=_PAMR),
    sclip_protocol("cityscapes", short=560, pamr=_PAMR),
    sclip_protocol("ade150", pamr=_PAMR),
)


def _without_pamr(protocol: Protocol) -> Protocol:
    steps = tuple(step for step in protocol.steps if not isinstance(step, Pamr))
    return replace(protocol, name=f"{protocol.name}_no_pamr", steps=steps)


@dataclass(frozen=True)
class NACLIP(Method):
    """The authors' ablations are settings.

    ``residual="own", mlp=True`` is their ``arch="vanilla"``; ``affinity`` = ``key_key`` is their "kk",
    ``correlative`` their "csa", ``query_key`` their "vanilla" attention.

    Attributes:
        gaussian_std: Deviation of the Gaussian in patches.
        neighbours_only: Leave the keys out: patches attend by distance alone (their "nonly").
    """

    name = "naclip"
    title = "NACLIP"
    paper = "Hajimiri, Ben Ayed, Dolz, Pay Attention to Your Neighbours, WACV 2025"
    reference = "sinahmr/NACLIP"
    code_licence = "MIT"
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
        *_PAPER,
        *map(_without_pamr, _PAPER),
        miou=_MIOU,
        emoji=replace(EMOJI_PROTOCOL, steps=(Pamr(10, (4, 8)), Softmax())),  # at half the size of the paper's
    )

    gaussian_std: float = 5.0
    neighbours_only: bool = False

    def __post_init__(self) -> None:
        if self.gaussian_std <= 0:
            raise ValueError(
                f"gaussian_std must be positive, got {self.gaussian_std}; for none: affinity='key_key'"
            )

    @property
    def readout(self) -> Readout:
        """Near keys, without residual and MLP."""
        attention = (NearOnly if self.neighbours_only else NearKeys)(self.gaussian_std)
        return Readout(attention, residual="none", mlp=False, pos_embed="bicubic_offset")
