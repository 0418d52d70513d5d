"""CAT-Seg: Cho et al., Cost Aggregation for Open-Vocabulary Semantic Segmentation, CVPR 2024.

The cosine similarities of all patches with all classes are a cost volume. A small network aggregates it: over
the image for each class (in windows, guided by image features), over the classes at each location (guided by
text embeddings), and then upsamples it with the help of the tower's inner features. Of CLIP, only the query
and value projections are tuned, in both towers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from ovseg.dense.attention import identity
from ovseg.dense.readout import Readout
from ovseg.dense.windows import Pad
from ovseg.inference.protocol import Protocol, Resize
from ovseg.inference.steps import DropBackground
from ovseg.methods.cat_seg.config import AggregatorConfig
from ovseg.methods.method import EMOJI_PROTOCOL, Method
from ovseg.towers.table import ASSETS, TowerInfo

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ovseg.towers.clip import CLIP

__all__ = ["EMOJI_HEAD", "CATSeg"]

EMOJI_HEAD = AggregatorConfig(
    width=64, layers=1, window=7, appearance_dim=32, text_dim=32, guidance_dims=(64, 32),
    decoder_dims=(32, 16), decoder_guidance_dims=(16, 8), pad_len=0, residual=20.0,
)  # fmt: skip
"""Of the model on the embedded tower: narrower, for windows of 14 x 14 patches."""

_WEIGHTS = "https://huggingface.co/spaces/hamacojr/CAT-Seg-weights/resolve/main"


def _weights(tower: str, arch: str, size: int, file: str) -> TowerInfo:
    return TowerInfo(
        f"cat_seg_{tower}.coco_stuff",
        arch,
        sources=(f"{_WEIGHTS}/{file}.pth",),
        activation="quick_gelu",
        image_size=size,
        licence="MIT",
    )


# A weight that only whole models have: of the authors, of ours, and of ours in training.
_HEADS = (
    "sem_seg_head.predictor.transformer.conv1.weight",
    "aggregator.embed.weight",
    "segmenter.aggregator.embed.weight",
)
_PAPER = Protocol(
    "paper",
    Resize(640, 2560, shrink="bilinear"),
    templates="cat_seg_single",
    average="keep",
    synonyms="first",
)
_OWN = replace(_PAPER, name="default", synonyms="all", background="words")


def _paper(name: str, words: str, base: float, large: float, **changes: Any) -> Protocol:
    numbers = {"vit_b16.coco_stuff": base, "vit_l14_336.coco_stuff": large}
    return replace(_PAPER, name=name, words=words, paper=numbers, **changes)


@dataclass(frozen=True)
class CATSeg(Method):
    """The published model: images are stretched to a square, cut into windows, and seen once more as a whole.

    Attributes:
        grid: Patches along each side of what the tower sees; windows are resized to it.
        canvas: Pixels of the square that an image is stretched to. None: the image is one window, whatever
            its shape (as in training), and probabilities are formed before they are upsampled.
        window: Pixels of the windows' sides on the canvas.
        stride: Pixels between windows.
        glance: Whether the square is seen as a whole as well, shrunk to a window.
        pooling: Cells per side that the class attention averages at inference. The published model was
            trained with ``train_pooling`` and is tested with 1.
        train_pooling: The same, in training.
        residual: Residual of the patches in the tower's last block: the class token's, as published, or each
            patch's ``own``, which a frozen tower needs.
        guidance_blocks: Blocks of the tower whose outputs guide the decoder; None for those at one and two
            thirds of its depth.
        aggregator: Sizes of the learned head, also as a dict; its ``embed_dim`` is that of the tower.
        prompts: Learned tokens per block of the image tower (its ``prompt`` tuning mode).
        fading: Training takes up to this share off the cosines of a class in an image, of each another, so
            that the head does not rely on words being equally well known: of images unlike those that the
            tower was trained on, some are not. 0 as published.
        balanced: Whether all classes that an image shows count alike in training, whatever their area.
        ignored: What becomes of pixels without a label in training. ``skip``: they do not count.
            ``negative``: they are examples against every class, as in the authors' code.
    """

    name = "cat_seg"
    title = "CAT-Seg"
    paper = "Cho et al., CAT-Seg: Cost Aggregation for Open-Vocabulary Semantic Segmentation, CVPR 2024"
    reference = "cvlab-kaist/CAT-Seg"
    code_licence = "MIT"
    trained = {  # noqa: RUF012
        "vit_b16.coco_stuff": _weights("vit_b16", "ViT-B-16-quickgelu", 224, "model_base"),
        "vit_l14_336.coco_stuff": _weights("vit_l14_336", "ViT-L-14-336-quickgelu", 336, "model_large"),
        "vit_tiny.emoji": TowerInfo(
            "cat_seg_vit_tiny.emoji",
            "",
            sources=(str(ASSETS / "cat_seg_vit_tiny.emoji.safetensors"),),
            base="vit_tiny.emoji",
            licence="Apache-2.0",
        ),
    }
    towers = tuple(trained)
    protocols = {  # noqa: RUF012
        "default": _OWN,
        "emoji": replace(
            _OWN,
            name="emoji",
            resize=Resize(224, shrink="bilinear"),
            templates=EMOJI_PROTOCOL.templates,
            average="norm_mean_norm",
            fields={
                "grid": 14,
                "canvas": 224,
                "window": 112,
                "stride": 56,
                "glance": False,
                "residual": "own",
                "aggregator": EMOJI_HEAD,
            },
        ),
        "whole": replace(_OWN, name="whole", pad=Pad(384, stretch=True), fields={"canvas": None}),
        "ade847": _paper("ade847", "ade847.cat_seg", 12.0, 16.0),
        "context459": _paper("context459", "context459.cat_seg", 19.0, 23.8),
        "ade150": _paper("ade150", "ade150.cat_seg", 31.8, 37.9),
        "context59": _paper("context59", "context59.cat_seg", 57.5, 63.3),
        "voc20": _paper("voc20", "voc20.cat_seg", 94.6, 97.0),
        # PAS-20b: the other classes of Context-59 compete as background, which is class 20.
        "voc20b": _paper("voc20b", "voc20b.cat_seg", 77.3, 82.5, steps=(DropBackground(label=20),)),
    }

    grid: int = 24
    canvas: int | None = 640
    window: int = 384
    stride: int = 256
    glance: bool = True
    pooling: int = 1
    train_pooling: int = 2
    residual: Literal["cls", "own"] = "cls"
    guidance_blocks: tuple[int, int] | None = None
    aggregator: AggregatorConfig = field(default_factory=AggregatorConfig)
    prompts: int = 0
    fading: float = 0.0
    balanced: bool = False
    ignored: Literal["skip", "negative"] = "skip"

    def __post_init__(self) -> None:
        if isinstance(self.aggregator, Mapping):  # from a config or a release
            sizes: dict[str, Any] = {
                key: tuple(v) if isinstance(v, list) else v for key, v in self.aggregator.items()
            }
            object.__setattr__(self, "aggregator", AggregatorConfig(**sizes))

    @property
    def readout(self) -> Readout:
        """The value path of the last block, with its MLP."""
        return Readout(identity, residual=self.residual, mlp=True, pos_embed="bicubic")

    def build(self, clip: CLIP, readout: Readout) -> nn.Module:
        """The model with a head that has not learned anything yet."""
        from ovseg.methods.cat_seg.model import CATSegModel

        return CATSegModel(clip, self, readout)

    @classmethod
    def owns(cls, state_dict: Mapping[str, Tensor]) -> bool:
        """Whether it holds the learned head, in the published layout or in ours."""
        return any(name in state_dict for name in _HEADS)

    @classmethod
    def convert(cls, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A published checkpoint, or a state dict of our own, to the layout of ``CATSegModel``."""
        from ovseg.methods.cat_seg.converter import convert_model, joined

        if _HEADS[0] in state_dict:
            return convert_model(state_dict)
        prefix = "" if _HEADS[1] in state_dict else "segmenter."
        return joined({k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)})
