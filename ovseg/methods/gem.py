"""GEM: Bousselham et al., Grounding Everything: Emerging Localization Properties in VLMs, CVPR 2024.

Attention of values to values, keys to keys and queries to queries groups tokens that belong together. Their
mean, block after block and without MLPs, goes into a second stream beside the one that CLIP was trained with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ovseg._lazy import F
from ovseg.dense.readout import Readout
from ovseg.inference.protocol import Protocol, Resize
from ovseg.inference.steps import MinMax
from ovseg.methods.clearclip import clearclip_protocol
from ovseg.methods.method import EMOJI_PROTOCOL, EMOJI_VITS, Method
from ovseg.methods.sclip_protocols import protocols_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ovseg.dense.readout import AttentionContext
    from ovseg.towers.clip import CLIP

__all__ = ["GEM", "SelfSelf"]


@dataclass(frozen=True)
class SelfSelf:
    """Mean of value-value, key-key and query-query attention between unit vectors, sharpened beforehand.

    Attributes:
        iterations: How often the vectors are first replaced by what they attend to.
        temperature: What similarities are multiplied with; None: the mean length of the image's normed tokens
            over sqrt(d).
    """

    inputs: ClassVar[str] = "qkv"
    iterations: int = 1
    temperature: float | None = None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, ctx: AttentionContext) -> Tensor:
        """Mixed values (B, heads, N, d)."""
        strength: Tensor | float
        if self.temperature is not None:
            strength = self.temperature
        elif ctx.tokens is not None:
            lengths = ctx.tokens.norm(dim=-1).mean(dim=1)  # (B,)
            strength = (ctx.scale * lengths)[:, None, None, None]
        else:
            raise ValueError("the adaptive temperature needs the tokens of the block")
        return sum(self._grouped(z, v, strength) for z in (v, k, q)) / 3  # type: ignore[return-value]

    def _grouped(self, z: Tensor, v: Tensor, strength: Tensor | float) -> Tensor:
        unit = F.normalize(z, dim=-1)
        for _ in range(self.iterations):
            unit = F.normalize(F.scaled_dot_product_attention(strength * unit, unit, unit, scale=1.0), dim=-1)
        return F.scaled_dot_product_attention(strength * unit, unit, v, scale=1.0)


_HEATMAPS = Protocol(
    "heatmaps",
    Resize(448, keep_ratio=False, shrink="bicubic"),
    templates="gem",
    steps=(MinMax(),),
)
# GEM's own numbers (VOC21 46.2, Context60 32.6) come from a protocol that was not published. These are from
# ClearCLIP's re-run in its own.
_MIOU = {
    "voc20": {"vit_b16.openai": 79.9, "vit_l14.openai": 80.3},
    "context59": {"vit_b16.openai": 35.9, "vit_l14.openai": 26.4},
    "coco_stuff171": {"vit_b16.openai": 23.7, "vit_l14.openai": 17.6},
    "cityscapes": {"vit_b16.openai": 30.8, "vit_l14.openai": 22.6},
    "ade150": {"vit_b16.openai": 15.7, "vit_l14.openai": 11.6},
}


@dataclass(frozen=True)
class GEM(Method):
    """Six blocks take part (their ``gem_depth=7``): set ``last_blocks`` for more or fewer.

    Attributes:
        iterations: See ``SelfSelf`` (their ``ss_attn_iter``).
        temperature: See ``SelfSelf`` (their ``ss_attn_temp``).
    """

    name = "gem"
    title = "GEM"
    paper = "Bousselham et al., Grounding Everything: Emerging Localization Properties in VLMs, CVPR 2024"
    reference = "WalBouss/GEM"
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
        _HEATMAPS,
        clearclip_protocol("voc20", words="voc20.clearclip"),
        clearclip_protocol("context59"),
        clearclip_protocol("coco_stuff171"),
        clearclip_protocol("cityscapes", windows=(224, 224)),
        clearclip_protocol("ade150"),
        miou=_MIOU,
        emoji=replace(EMOJI_PROTOCOL, fields={"last_blocks": 3}),  # half of the blocks, as of ViT-B
    )

    iterations: int = 1
    temperature: float | None = None

    @property
    def readout(self) -> Readout:
        """A second stream beside the last six blocks."""
        attention = SelfSelf(self.iterations, self.temperature)
        return Readout(attention, mlp=False, last_blocks=6, stream="accumulate")

    def build(self, clip: CLIP, readout: Readout) -> nn.Module:
        """The model; in a tower of fewer blocks than asked for, all of them take part."""
        depth = len(getattr(clip.visual, "blocks", ())) or readout.last_blocks
        return super().build(clip, replace(readout, last_blocks=min(readout.last_blocks, depth)))
