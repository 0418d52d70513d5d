"""LPOSS: Stojnić et al., Label Propagation Over Patches and Pixels, CVPR 2025.

MaskCLIP scores the patches of all windows. One graph joins the patches of the whole image: those whose DINO
features are alike, more strongly where they lie near each other (section 3.2). Label propagation over it lets
patches agree, across windows too. LPOSS+ repeats it over pixels, joined to the pixels around them by likeness
of colour (section 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from ovseg.dense.attention import identity
from ovseg.dense.readout import Readout
from ovseg.inference.protocol import Protocol, Resize
from ovseg.inference.steps import Softmax
from ovseg.methods.method import DEFAULT_PROTOCOL, EMOJI_PROTOCOL, EMOJI_VITS, Method
from ovseg.methods.sclip_protocols import protocols_of
from ovseg.towers.auxiliary import EMBEDDED_DINO

if TYPE_CHECKING:
    from torch import nn

    from ovseg.towers.auxiliary import AuxiliaryTower
    from ovseg.towers.clip import CLIP

__all__ = ["LPOSS", "LPOSSPlus"]

_WORDS = {
    "voc21": "voc21.lposs",
    "context60": "context60.clip_dinoiser",
    "coco_object": "coco_object.lposs",
    "voc20": "voc20.clip_dinoiser",
    "context59": "context59.clip_dinoiser",
    "coco_stuff171": "coco_stuff171.cat_seg",
    "cityscapes": "cityscapes.clip_dinoiser",
    "ade150": "ade150.cat_seg",
}
_TOWER = "vit_b16.laion2b"
_MIOU = dict(zip(_WORDS, (61.1, 34.6, 33.4, 78.8, 37.8, 25.9, 37.3, 21.8)))
_MIOU_PLUS = dict(zip(_WORDS, (62.4, 35.4, 34.3, 79.3, 38.6, 26.5, 37.9, 22.3)))

# Propagated scores are sums over neighbours, up to 1 / (1 - alpha) = 20 times as large as the cosines.
_STEPS = (Softmax(5.0),)
_DEFAULT = replace(DEFAULT_PROTOCOL, crop=224, stride=112, steps=_STEPS)
# Chosen on the validation artist, whose drawings are smaller than the things on photographs.
_EMOJI = replace(
    EMOJI_PROTOCOL,
    steps=_STEPS,
    fields={"auxiliary": EMBEDDED_DINO, "neighbours": 100, "gamma": 10.0, "alpha": 0.8, "sigma": 0.1},
)


def _paper(name: str) -> Protocol:
    return Protocol(
        name, Resize(448), crop=224, stride=112, words=_WORDS[name], fields={"merge_words_first": True}
    )


def _protocols(miou: dict[str, float]) -> dict[str, Protocol]:
    numbers = {name: {_TOWER: value} for name, value in miou.items()}
    return protocols_of(*map(_paper, _WORDS), miou=numbers, default=_DEFAULT, emoji=_EMOJI)


@dataclass(frozen=True)
class LPOSS(Method):
    """Propagation over patches; ``pixel_refine`` adds the one over pixels.

    Attributes:
        auxiliary: Name of the auxiliary tower (``ovseg.towers.auxiliary``), or a tower.
        site: Which of its last block's projections the features are.
        neighbours: Edges from each patch (the paper's k).
        gamma: Exponent of the similarity of features.
        sigma: Decay with the distance of patches, per pixel.
        distance_power: Exponent of the distance.
        alpha: Share of the neighbours' scores, 0 to below 1.
        iterations: Of the solver. Published with 10, which do not reach the solution.
        tolerance: Relative residual at which the solver stops earlier.
        pixel_refine: LPOSS+.
        pixel_window: Side of the square of pixels that a pixel is joined to (the paper's r).
        tau: Decay with the difference in colour.
        merge_words_first: Take the best word of each class before scores are resized to the output, as the
            authors' code does, instead of after.
    """

    name = "lposs"
    title = "LPOSS"
    paper = (
        "Stojnić, Kalantidis, Matas, Tolias, LPOSS: Label Propagation Over Patches and Pixels for "
        "Open-vocabulary Semantic Segmentation, CVPR 2025"
    )
    reference = "vladan-stojnic/LPOSS"
    code_licence = "MIT"
    towers: ClassVar[tuple[str, ...]] = (
        *EMOJI_VITS,
        "vit_b16.laion2b",
        "vit_b16.openai",
        "vit_b16.datacomp",
        "vit_b16.dfn",
        "vit_l14.laion2b",
    )
    protocols = _protocols(_MIOU)

    auxiliary: str | AuxiliaryTower = "dino_vit_b16"
    site: Literal["q", "k", "v"] = "v"
    neighbours: int = 400
    gamma: float = 3.0
    sigma: float = 0.01
    distance_power: float = 1.0
    alpha: float = 0.95
    iterations: int = 10
    tolerance: float = 1e-6
    pixel_refine: bool = False
    pixel_window: int = 13
    tau: float = 0.01
    merge_words_first: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < 1:
            raise ValueError(f"alpha must lie between 0 and below 1, got {self.alpha}")
        if self.neighbours < 1 or self.pixel_window < 2 or self.tau <= 0:
            raise ValueError(
                f"neighbours >= 1, pixel_window >= 2 and tau > 0 are needed, got {self.neighbours}, "
                f"{self.pixel_window} and {self.tau}"
            )

    @property
    def readout(self) -> Readout:
        """MaskCLIP's, with residual and MLP."""
        return Readout(identity, residual="own", mlp=True, pos_embed="bicubic")

    def build(self, clip: CLIP, readout: Readout) -> nn.Module:
        """See ``Method``.

        Raises:
            ValueError: The auxiliary tower is unknown.
            WeightsUnavailableError: Its weights are not here and cannot be fetched.
        """
        from ovseg.methods.lposs.model import LPOSSSegmenter

        return LPOSSSegmenter(clip, self, readout)


@dataclass(frozen=True)
class LPOSSPlus(LPOSS):
    """LPOSS, then propagation over pixels."""

    name = "lposs_plus"
    title = "LPOSS+"
    towers = ("vit_b16.laion2b",)
    protocols = _protocols(_MIOU_PLUS)

    pixel_refine: bool = True
