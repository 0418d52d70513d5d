"""Trident: Shi, Dong, Xu, Harnessing Vision Foundation Models for Training-free Segmentation, ICCV 2025.

ProxyCLIP's attention, with DINO, makes features of overlapping windows. They are spliced into one map of the
whole image before anything is classified. There each patch takes the mean of all patches, weighted by the
attention of SAM's last block where SAM's values are alike. SAM's mask decoder may then redraw the regions of
the label map (``ovseg.inference.steps.SamRefine``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ovseg.dense.readout import Readout
from ovseg.inference.protocol import Protocol
from ovseg.inference.steps import SamRefine
from ovseg.methods.method import DEFAULT_PROTOCOL, EMOJI_PROTOCOL, EMOJI_VITS, Method
from ovseg.methods.proxyclip import EMBEDDED_PROXY, ProxyAttention
from ovseg.methods.sclip_protocols import protocols_of, sclip_protocol

if TYPE_CHECKING:
    from torch import nn

    from ovseg.towers.auxiliary import AuxiliaryTower
    from ovseg.towers.clip import CLIP

__all__ = ["Trident"]

_MIOU = {
    "voc21": {"vit_b16.openai": 67.1, "vit_h14.laion2b": 70.8},
    "context60": {"vit_b16.openai": 38.6, "vit_h14.laion2b": 40.1},
    "coco_object": {"vit_b16.openai": 41.1, "vit_h14.laion2b": 42.2},
    "voc20": {"vit_b16.openai": 84.5, "vit_h14.laion2b": 88.7},
    "context59": {"vit_b16.openai": 42.2, "vit_h14.laion2b": 44.3},
    "coco_stuff171": {"vit_b16.openai": 28.3, "vit_h14.laion2b": 28.6},
    "cityscapes": {"vit_b16.openai": 42.9, "vit_h14.laion2b": 47.6},
    "ade150": {"vit_b16.openai": 21.9, "vit_h14.laion2b": 26.7},
}


def _paper(
    name: str, short: int, coarse: float, words: str | None = None, floor: float = 0.0, **fields: Any
) -> Protocol:
    base = sclip_protocol(name, words=words, short=short, windows=None, floor=floor)
    refine = SamRefine(coarse, prompt_norm="rows")
    return replace(base, steps=(*base.steps, refine), fields=fields)


_PAPER = (
    _paper("voc21", 448, 0.2, "voc21.proxyclip", 0.2),
    _paper("context60", 576, 0.15, floor=0.15),
    _paper("coco_object", 448, 0.25, "coco_object.proxyclip", 0.25),
    _paper("voc20", 336, 0.2, "voc20.clearclip", window_stride=112, cos_factor=0.0),
    _paper("context59", 576, 0.15),
    _paper("coco_stuff171", 448, 0.05),
    _paper("cityscapes", 688, 0.1, cos_factor=3.0, negative_threshold=0.6, split_halves=True),
    _paper("ade150", 576, 0.05, negative_threshold=0.6),
)


def _own(protocol: Protocol) -> Protocol:
    """For users' own images: the windows are the method's."""
    return replace(protocol, crop=None, stride=None, steps=(*protocol.steps, SamRefine()))


# No SAM is embedded: features are spliced, but neither averaged over the image nor redrawn.
_EMOJI = replace(
    EMOJI_PROTOCOL,
    crop=None,
    stride=None,
    fields={**EMBEDDED_PROXY, "sam": None, "window": 224, "window_stride": 64},
)
_PAIRS = replace(
    _EMOJI,
    name="emoji_pairs",
    resize=replace(_EMOJI.resize, short=224),
    fields={**_EMOJI.fields, "window": 96, "window_stride": 64},
)


@dataclass(frozen=True)
class Trident(Method):
    """Sides of windows and steps are in pixels; both must be multiples of CLIP's patch.

    Attributes:
        auxiliary: Name of the tower of the proxy attention (``ovseg.towers.auxiliary``), or a tower.
        sam: Name of a SAM, or a tower with ``encode``; None leaves out the average over the whole image.
        beta: See ``ProxyAttention``.
        gamma: See ``ProxyAttention``.
        window: Side of the windows.
        window_stride: Step between windows.
        cos_factor: See ``aggregate``.
        negative_threshold: See ``aggregate``; 0.6 where the authors' code has ``refine_neg_cos=False``.
        split_halves: Let SAM see the left and the right half one by one (Cityscapes).
        swap_grid: See ``ProxyAttention``.
    """

    name = "trident"
    title = "Trident"
    paper = (
        "Shi, Dong, Xu, Harnessing Vision Foundation Models for High-Performance, Training-Free Open "
        "Vocabulary Segmentation, ICCV 2025"
    )
    reference = "YuHengsss/Trident"
    code_licence = "Apache-2.0"
    towers = (
        *EMOJI_VITS,
        "vit_b16.openai",
        "vit_b16.laion2b",
        "vit_b16.metaclip",
        "vit_b16.dfn",
        "vit_h14.laion2b",
    )
    protocols = protocols_of(*_PAPER, miou=_MIOU, default=_own(DEFAULT_PROTOCOL), emoji=_EMOJI, pairs=_PAIRS)

    auxiliary: str | AuxiliaryTower = "dino_vit_b16"
    sam: str | Any | None = "sam_vit_b"
    beta: float = 1.2
    gamma: float = 3.0
    window: int = 336
    window_stride: int = 224
    cos_factor: float = 1.2
    negative_threshold: float | None = None
    split_halves: bool = False
    swap_grid: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.window_stride <= self.window:
            raise ValueError(
                f"window_stride must lie between 1 and window, got {self.window_stride} and {self.window}"
            )

    @property
    def readout(self) -> Readout:
        """Proxy attention without the class token, residual and MLP; the tail comes after the fusion."""
        attention = ProxyAttention(self.beta, self.gamma, swap_grid=self.swap_grid)
        return Readout(
            attention, residual="none", mlp=False, pos_embed="bicubic_offset", drop_cls=True, tail=False
        )

    def build(self, clip: CLIP, readout: Readout) -> nn.Module:
        """See ``Method``.

        Raises:
            ValueError: A tower is unknown, or windows are no multiples of CLIP's patch.
            WeightsUnavailableError: Weights are not here and cannot be fetched.
        """
        from ovseg.methods.trident.model import TridentSegmenter

        patch = clip.visual.stride
        if self.window % patch or self.window_stride % patch:
            raise ValueError(
                f"window={self.window} and window_stride={self.window_stride} must be multiples of the "
                f"patch, {patch} pixels"
            )
        return TridentSegmenter(clip, self, readout)
