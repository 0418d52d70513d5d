"""What a method file declares. Importable without torch, as tables are printed from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ovseg.dense.readout import Readout
from ovseg.inference.protocol import Protocol, Resize
from ovseg.inference.steps import Softmax

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ovseg.dense.features import DenseFeatures
    from ovseg.towers.clip import CLIP
    from ovseg.towers.clip_resnet import ModifiedResNet
    from ovseg.towers.table import TowerInfo

__all__ = ["DEFAULT_PROTOCOL", "EMOJI_PROTOCOL", "EMOJI_VITS", "Method", "pairs_protocol"]

DEFAULT_PROTOCOL = Protocol(
    "default",
    Resize(448, whole_patches=True, shrink="area"),
    crop=448,
    stride=224,
    steps=(Softmax(),),
    background="words",
)
"""For users' own images and words; no published number depends on it."""

EMOJI_PROTOCOL = Protocol(
    "emoji",
    Resize(288, whole_patches=True, shrink="area"),
    crop=224,
    stride=64,
    templates=("{}", "a {}", "a photo of a {}.", "a drawing of a {}."),  # these it was trained with
    steps=(Softmax(),),
    background="words",
)
"""For the embedded towers, which were trained on scenes of at most 224 pixels."""


def pairs_protocol(emoji: Protocol = EMOJI_PROTOCOL) -> Protocol:
    """For the tower trained on image-text pairs alone: nearly all its images had 64 to 128 pixels.

    Args:
        emoji: For the other embedded tower.
    """
    if emoji.crop is None:
        return replace(emoji, name="emoji_pairs")
    resize = replace(emoji.resize, short=224)
    return replace(emoji, name="emoji_pairs", resize=resize, crop=96, stride=64)


EMOJI_VITS = ("vit_tiny.emoji", "vit_tiny.emoji_pairs")
"""The embedded ViTs, which every method for ViTs that needs no training has rows for."""


@dataclass(frozen=True)
class Method:
    """A way to read a CLIP densely. Dataclass fields of subclasses are the method's own settings.

    Attributes:
        name: Left part of zoo names.
        title: As the paper writes it.
        paper: Authors, title, venue.
        reference: Repository of the authors' code.
        code_licence: Licence of that code ("none" where it has none); ours is the project's own.
        towers: Towers of the zoo rows.
        protocols: Named settings, at least ``default``.
        trained: Weights of whole models (CLIP as it was tuned, and what the method learned) by the right part
            of the zoo's names; they are among ``towers`` too.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    reference: ClassVar[str]
    code_licence: ClassVar[str]
    towers: ClassVar[tuple[str, ...]]
    protocols: ClassVar[Mapping[str, Protocol]] = {
        protocol.name: protocol for protocol in (DEFAULT_PROTOCOL, EMOJI_PROTOCOL, pairs_protocol())
    }
    trained: ClassVar[Mapping[str, TowerInfo]] = {}

    @property
    def readout(self) -> Readout:
        """How the last blocks of a ViT are rewritten."""
        return Readout()

    def read_resnet(self, tower: ModifiedResNet, image: Tensor) -> DenseFeatures:
        """Dense features of a CLIP ResNet.

        Raises:
            ValueError: The method is defined on ViTs only.
        """
        raise ValueError(f"{self.title} reads the blocks of a ViT; choose a vit_* tower")

    def refine(self, scores: Tensor, features: DenseFeatures, tower: Any) -> Tensor:
        """Acts on the cosine scores (B, Q, h, w) at patch resolution of features read from ``tower``."""
        return scores

    @classmethod
    def owns(cls, state_dict: Mapping[str, Tensor]) -> bool:
        """Whether a state dict is that of a whole trained model of this method, in any layout."""
        return False

    @classmethod
    def fields_of(cls, state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
        """Fields of the method that follow from the weights of a trained model, in our layout."""
        return {}

    @classmethod
    def convert(cls, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict that it ``owns``, in the layout of the model that ``build`` returns."""
        return dict(state_dict)

    def build(self, clip: CLIP, readout: Readout) -> nn.Module:
        """The model; methods with learned parts return their own module."""
        from ovseg.methods.segmenter import Segmenter

        return Segmenter(clip, self, readout)
