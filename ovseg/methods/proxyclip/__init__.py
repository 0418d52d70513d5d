"""Lan et al., ProxyCLIP: Proxy Attention Improves CLIP for Open-Vocabulary Segmentation, ECCV 2024.

In the last block a patch attends to the patches that look alike to a self-supervised tower (DINO): the cosine
similarity of its features, less ``beta`` times its mean, times ``gamma``, and only where that is positive
(section 3.3). All heads share it. CLIP's values are brought to the finer grid of the auxiliary features.
Residual and MLP are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ovseg._lazy import F, torch
from ovseg.dense.operators import row_blocks
from ovseg.dense.readout import Readout
from ovseg.dense.windows import Pad
from ovseg.methods.method import DEFAULT_PROTOCOL, EMOJI_PROTOCOL, EMOJI_VITS, Method
from ovseg.methods.sclip_protocols import protocols_of, sclip_protocol
from ovseg.towers.auxiliary import EMBEDDED_DINO

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ovseg.dense.readout import AttentionContext
    from ovseg.towers.auxiliary import AuxiliaryTower
    from ovseg.towers.clip import CLIP

__all__ = ["EMBEDDED_PROXY", "ProxyAttention", "ProxyCLIP", "mean_similarity"]


@dataclass(frozen=True)
class ProxyAttention:
    """softmax(gamma (s - beta mean(s))) v over the positive entries, s the cosines of auxiliary features.

    ``ctx.extra`` holds ``features`` (B, C, I, J), and may hold ``mean_similarity`` (B,).

    Attributes:
        beta: Share of the mean similarity that is subtracted.
        gamma: Inverse temperature.
        mean_over: Each ``image``, or the whole ``batch`` as in the authors' code, by which an image's result
            depends on what else is in the batch.
        swap_grid: Read the values of a grid h x w as if it were w x h, as in the authors' code. Only square
            images are unharmed.
    """

    inputs: ClassVar[str] = "v"
    beta: float = 1.2
    gamma: float = 3.0
    mean_over: Literal["image", "batch"] = "image"
    swap_grid: bool = False

    def __call__(self, q: None, k: None, v: Tensor, ctx: AttentionContext) -> tuple[Tensor, tuple[int, int]]:
        """Mixed values (B, heads, I * J, d), and the grid (I, J)."""
        features: Tensor = ctx.extra["features"]
        grid = (features.shape[2], features.shape[3])
        unit = F.normalize(features.flatten(2).float(), dim=1)
        mean = ctx.extra.get("mean_similarity")
        if mean is None:
            mean = mean_similarity(features)
            mean = mean.mean().expand_as(mean) if self.mean_over == "batch" else mean
        mixed = self._mix(unit, mean, self._values(v, ctx, grid))
        return mixed.unflatten(2, (v.shape[1], -1)).transpose(1, 2), grid

    def _values(self, v: Tensor, ctx: AttentionContext, grid: tuple[int, int]) -> Tensor:
        """Values of the patches, heads concatenated, on the grid of the features: (B, I * J, D)."""
        own = ctx.grid[::-1] if self.swap_grid else ctx.grid
        values = v[:, :, ctx.prefix :].transpose(2, 3).flatten(1, 2)  # (B, D, h * w)
        if own != grid:
            values = F.interpolate(values.unflatten(2, own), grid, mode="bilinear", align_corners=False)
            values = values.flatten(2)
        return values.transpose(1, 2)

    def _mix(self, unit: Tensor, mean: Tensor, values: Tensor) -> Tensor:
        """Values (B, N, D) averaged by the similarity of unit features (B, C, N)."""
        centre = self.beta * mean[:, None, None]
        mixed = []
        for rows in row_blocks(unit.shape[2], unit.shape[0] * unit.shape[2]):
            logits = (unit[:, :, rows].transpose(1, 2) @ unit - centre) * self.gamma  # (B, n, N)
            # A position is most like itself. Where even that is below the mean, it keeps its own value (in
            # the authors' code such rows are NaN).
            logits.diagonal(rows.start, dim1=1, dim2=2).clamp_(min=0)
            weights = logits.masked_fill_(logits < 0, -torch.inf).softmax(dim=-1)
            mixed.append(weights.to(values.dtype) @ values)
        return torch.cat(mixed, dim=1)


def mean_similarity(features: Tensor) -> Tensor:
    """Mean cosine over all pairs of positions of (B, C, h, w): (B,), from the sum of the unit vectors."""
    total = F.normalize(features.flatten(2).float(), dim=1).sum(dim=2, dtype=torch.float64)
    return (total.square().sum(dim=1) / features[0, 0].numel() ** 2).float()


_MIOU = {
    "voc21": {"vit_b16.openai": 61.3, "vit_l14.openai": 60.6, "vit_h14.laion2b": 65.0},
    "context60": {"vit_b16.openai": 35.3, "vit_l14.openai": 34.5, "vit_h14.laion2b": 35.4},
    "coco_object": {"vit_b16.openai": 37.5, "vit_l14.openai": 39.2, "vit_h14.laion2b": 38.6},
    "voc20": {"vit_b16.openai": 80.3, "vit_l14.openai": 83.2, "vit_h14.laion2b": 83.3},
    "context59": {"vit_b16.openai": 39.1, "vit_l14.openai": 37.7, "vit_h14.laion2b": 39.6},
    "coco_stuff171": {"vit_b16.openai": 26.5, "vit_l14.openai": 25.6, "vit_h14.laion2b": 26.8},
    "cityscapes": {"vit_b16.openai": 38.1, "vit_l14.openai": 40.1, "vit_h14.laion2b": 42.0},
    "ade150": {"vit_b16.openai": 20.2, "vit_l14.openai": 22.6, "vit_h14.laion2b": 24.2},
}
_PAD = Pad(56, side="centre")
_WIDE, _NARROW = (336, 112), (224, 112)
_PAPER = (
    sclip_protocol("voc21", words="voc21.proxyclip", windows=_WIDE, floor=0.2, pad=_PAD),
    sclip_protocol("context60", windows=_WIDE, floor=0.15, pad=_PAD),
    sclip_protocol("coco_object", words="coco_object.proxyclip", windows=_WIDE, floor=0.25, pad=_PAD),
    sclip_protocol("voc20", words="voc20.clearclip", windows=_WIDE, pad=_PAD),
    sclip_protocol("context59", windows=_WIDE, pad=_PAD),
    sclip_protocol("coco_stuff171", windows=_WIDE, pad=_PAD),
    sclip_protocol("cityscapes", short=448, windows=_NARROW, pad=_PAD),
    sclip_protocol("ade150", short=448, windows=_WIDE, pad=_PAD),
    sclip_protocol("ade847", words="ade847.proxyclip", short=448, windows=_WIDE, pad=_PAD),
    sclip_protocol("context459", words="context459.proxyclip", short=448, windows=_WIDE, pad=_PAD),
)


EMBEDDED_PROXY: Mapping[str, Any] = {"auxiliary": EMBEDDED_DINO, "beta": 1.3, "gamma": 30.0}
"""For the embedded towers, chosen on the validation artist: all patches of a small tower are rather alike."""


@dataclass(frozen=True)
class ProxyCLIP(Method):
    """Published with DINO ViT-B/8; DINOv2, SAM and MAE are the authors' ablations.

    Attributes:
        auxiliary: Name of the auxiliary tower (``ovseg.towers.auxiliary``), or a tower.
        beta: See ``ProxyAttention``.
        gamma: See ``ProxyAttention``.
        mean_over: See ``ProxyAttention``.
        swap_grid: See ``ProxyAttention``.
    """

    name = "proxyclip"
    title = "ProxyCLIP"
    paper = "Lan et al., ProxyCLIP: Proxy Attention Improves CLIP for Open-Vocabulary Segmentation, ECCV 2024"
    reference = "mc-lan/ProxyCLIP"
    code_licence = "NTU S-Lab 1.0 (non-commercial)"
    towers = (
        *EMOJI_VITS,
        "vit_b16.openai",
        "vit_b16.laion2b",
        "vit_b16.metaclip",
        "vit_b16.dfn",
        "vit_l14.openai",
        "vit_h14.laion2b",
    )
    protocols = protocols_of(
        *_PAPER,
        miou=_MIOU,
        default=replace(DEFAULT_PROTOCOL, pad=_PAD),
        emoji=replace(EMOJI_PROTOCOL, fields=EMBEDDED_PROXY),
    )

    auxiliary: str | AuxiliaryTower = "dino_vit_b8"
    beta: float = 1.2
    gamma: float = 3.0
    mean_over: Literal["image", "batch"] = "image"
    swap_grid: bool = False

    def __post_init__(self) -> None:
        if self.gamma <= 0:
            raise ValueError(f"gamma must be positive, got {self.gamma}")
        if self.mean_over not in ("image", "batch"):
            raise ValueError(f"mean_over must be 'image' or 'batch', got {self.mean_over!r}")

    @property
    def readout(self) -> Readout:
        """Proxy attention, without residual and MLP."""
        attention = ProxyAttention(self.beta, self.gamma, self.mean_over, self.swap_grid)
        return Readout(attention, residual="none", mlp=False, pos_embed="bicubic_offset")

    def build(self, clip: CLIP, readout: Readout) -> nn.Module:
        """See ``Method``.

        Raises:
            ValueError: The auxiliary tower is unknown.
            WeightsUnavailableError: Its weights are not here and cannot be fetched.
        """
        from ovseg.methods.proxyclip.model import ProxySegmenter

        return ProxySegmenter(clip, self, readout, self.auxiliary)
