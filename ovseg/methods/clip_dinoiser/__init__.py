"""CLIP-DINOiser: Wysoczańska et al., CLIP-DINOiser: Teaching CLIP a Few DINO Tricks, ECCV 2024.

MaskCLIP's features are noisy. Averaged over patches that belong together they are less so, and DINO knows
which do. A convolution on CLIP's own inner features learns to say what DINO would (section 3.2), so that at
test time CLIP alone runs; another learns from FOUND which patches are background (section 3.3). ``dinoclip``
is the teacher: the same pooling by DINO's own similarities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ovseg.dense.attention import identity
from ovseg.dense.readout import Readout
from ovseg.dense.windows import Pad
from ovseg.inference.protocol import Protocol, Resize
from ovseg.methods.method import DEFAULT_PROTOCOL, EMOJI_PROTOCOL, EMOJI_VITS, Method, pairs_protocol
from ovseg.towers.auxiliary import EMBEDDED_DINO
from ovseg.towers.table import ASSETS, TowerInfo

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ovseg.towers.auxiliary import AuxiliaryTower
    from ovseg.towers.clip import CLIP

__all__ = ["EMOJI_HEAD", "CLIPDINOiser", "DinoCLIP"]

_PAPER = "Wysoczańska et al., CLIP-DINOiser: Teaching CLIP a Few DINO Tricks, ECCV 2024"
_PAD = Pad(16, before_norm=True)
_TRAINING = "segmenter."  # prefix of names in checkpoints of ``CLIPDINOiserSegmentor``
EMOJI_HEAD: Mapping[str, Any] = {"channels": 64, "gamma": 0.85}
"""Settings of the models on the embedded towers, whose small teacher finds everything a little alike."""

_BACKGROUND: dict[str, Any] = {"uncertain_background": 0}


def _protocol(name: str, miou: float | None, words: str | None = None, **fields: Any) -> Protocol:
    """Windows of 448 pixels; what is averaged over them are probabilities."""
    return Protocol(
        name,
        Resize(448),
        crop=448,
        stride=224,
        pad=_PAD,
        words=words or f"{name}.clip_dinoiser",
        fields=fields,
        paper={"vit_b16.laion2b": miou} if miou is not None else {},
    )


def _protocols(*miou: float | None, emoji: Mapping[str, Any]) -> dict[str, Protocol]:
    voc21, context60, objects, voc20, context59, stuff, cityscapes, ade = miou
    papers = (
        _protocol("voc21", voc21, **_BACKGROUND),
        _protocol("context60", context60),
        _protocol("coco_object", objects, **_BACKGROUND),
        _protocol("voc20", voc20),
        _protocol("context59", context59),
        _protocol("coco_stuff171", stuff, "coco_stuff171.cat_seg"),
        _protocol("cityscapes", cityscapes),
        _protocol("ade150", ade, "ade150.cat_seg"),
    )
    # patches hold probabilities already: no softmax follows
    drawings = replace(EMOJI_PROTOCOL, steps=(), fields=emoji)
    own = (replace(DEFAULT_PROTOCOL, steps=()), drawings, pairs_protocol(drawings))
    return {protocol.name: protocol for protocol in (*own, *papers)}


@dataclass(frozen=True)
class _Pooled(Method):
    """What student and teacher share.

    Attributes:
        gamma: Similarities of patches below it count as zero; None or 0: all count.
        scale: Of the softmax over words at each patch.
        delta: A patch whose best probability is below it is uncertain.
        uncertain_background: Index of the background class, which uncertain patches get where the background
            convolution sees no object. None: off. Published for VOC-21 and COCO-Object only.
    """

    gamma: float | None = 0.2
    scale: float = 100.0
    delta: float = 0.99
    uncertain_background: int | None = None


@dataclass(frozen=True)
class CLIPDINOiser(_Pooled):
    """The published model: two convolutions on a frozen CLIP.

    Attributes:
        guide: What the convolutions read: the normed MLP input of block ``guide_block`` (``ln_2``), or the
            ``final`` features.
        guide_block: Negative blocks count from the end.
        channels: Of the learned affinity.
        kernel: Its size in patches.
    """

    name = "clip_dinoiser"
    title = "CLIP-DINOiser"
    paper = _PAPER
    reference = "wysoczanska/clip_dinoiser"
    code_licence = "Apache-2.0"
    trained = {  # noqa: RUF012
        "vit_b16.laion2b": TowerInfo(
            "clip_dinoiser_vit_b16.laion2b",
            "ViT-B-16",
            sources=("https://github.com/wysoczanska/clip_dinoiser/raw/main/checkpoints/last.pt",),
            licence="Apache-2.0",
            base="vit_b16.laion2b",
        ),
        "vit_tiny.emoji": TowerInfo(
            "clip_dinoiser_vit_tiny.emoji",
            "",
            sources=(str(ASSETS / "clip_dinoiser_vit_tiny.emoji.safetensors"),),
            base="vit_tiny.emoji",
            licence="Apache-2.0",
        ),
    }
    towers = tuple(trained)
    protocols = _protocols(62.1, 32.4, 34.8, 80.9, 35.9, 24.6, 31.7, 20.0, emoji=EMOJI_HEAD)

    guide: Literal["ln_2", "final"] = "ln_2"
    guide_block: int = -3
    channels: int = 256
    kernel: int = 3

    @property
    def readout(self) -> Readout:
        """MaskCLIP's, and the tap that the convolutions read."""
        taps = ((self.guide_block, "ln_2"),) if self.guide == "ln_2" else ()
        return Readout(identity, residual="own", mlp=True, pos_embed="bicubic", taps=taps)

    def build(self, clip: CLIP, readout: Readout) -> nn.Module:
        """The model with convolutions that have not learned anything yet."""
        from ovseg.methods.clip_dinoiser.model import DinoiserSegmenter

        return DinoiserSegmenter(clip, self, readout)

    @classmethod
    def owns(cls, state_dict: Mapping[str, Tensor]) -> bool:
        """Whether it holds the two convolutions, as published or as a training leaves them."""
        return any(f"{prefix}obj_proj.weight" in state_dict for prefix in ("", _TRAINING))

    @classmethod
    def convert(cls, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Without what belongs to a training."""
        prefix = "" if "obj_proj.weight" in state_dict else _TRAINING
        return {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}


@dataclass(frozen=True)
class DinoCLIP(_Pooled):
    """The teacher at test time: an upper bound, with two more networks to run.

    Attributes:
        auxiliary: Name of the DINO tower, or a tower.
        feature: Which projections of its last block are compared: keys or values.
        saliency: Where objects are, which ``uncertain_background`` needs: ``found``, or a function from
            images in [0, 1] to logits (B, 1, h, w) of being an object.
    """

    name = "dinoclip"
    title = "DinoCLIP"
    paper = _PAPER
    reference = "wysoczanska/clip_dinoiser"
    code_licence = "Apache-2.0"
    towers = (*EMOJI_VITS, "vit_b16.laion2b")
    protocols = {  # noqa: RUF012
        name: replace(protocol, fields={**protocol.fields, "saliency": "found"})
        if protocol.fields == _BACKGROUND
        else protocol
        for name, protocol in _protocols(
            *[None] * 8, emoji={"auxiliary": EMBEDDED_DINO, "gamma": EMOJI_HEAD["gamma"]}
        ).items()
    }

    auxiliary: str | AuxiliaryTower = "dino_vit_b16"
    feature: Literal["k", "v"] = "v"
    saliency: Literal["found"] | Callable[[Tensor], Tensor] | None = None

    @property
    def readout(self) -> Readout:
        """MaskCLIP's."""
        return Readout(identity, residual="own", mlp=True, pos_embed="bicubic")

    def build(self, clip: CLIP, readout: Readout) -> nn.Module:
        """See ``Method``."""
        from ovseg.methods.clip_dinoiser.model import DinoCLIPSegmenter

        return DinoCLIPSegmenter(clip, self, readout)
