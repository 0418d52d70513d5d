"""RegionCLIP: Zhong et al., RegionCLIP: Region-based Language-Image Pretraining, CVPR 2022.

CLIP was trained to match whole images with captions, and tells regions apart badly. RegionCLIP trains its
image tower further on the proposals of an RPN: a frozen CLIP names each region from a pool of concepts, and
the student learns to match regions with those names, beside images with captions (section 3.2). A region is
RoIAlign of the ResNet's third stage, then the last stage and the attention pool (``ovseg.regions``). With an
untrained ViT, which the paper does not have, a region is the mean of dense features, read without the last
attention; trained as a detector, RoIAlign of the tokens behind some block, then the blocks that follow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ovseg._lazy import F, torch
from ovseg.dense.attention import identity
from ovseg.dense.readout import Readout
from ovseg.inference.protocol import Protocol, Resize
from ovseg.inference.steps import Softmax
from ovseg.methods.method import EMOJI_PROTOCOL, Method
from ovseg.towers.table import ASSETS, TowerInfo

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ovseg.dense.features import DenseFeatures
    from ovseg.towers.clip import CLIP
    from ovseg.towers.clip_resnet import ModifiedResNet

__all__ = ["DETECTORS", "RegionCLIP"]

# Its authors' resizing, and their prompts, averaged as they are.
_PAPER = Protocol(
    "ov_coco",
    Resize(800, 1333, shrink="bilinear"),
    templates="regionclip81",
    average="mean",
    words="coco_ov65",
    steps=(Softmax(),),
    background="none",
)

_ZOO = "github.com/microsoft/RegionCLIP/blob/main/docs/MODEL_ZOO.md"
_TEMPERATURE = 0.01  # of its training; its files do not hold one


def _pretrained(tower: str, arch: str, size: int) -> TowerInfo:
    """Its authors publish on Google Drive only, which has no address to fetch a file from."""
    return TowerInfo(
        f"region_clip_{tower}.cc3m",
        f"{arch}-quickgelu",
        hub_files=(f"regionclip_pretrained-cc_{tower}.pth",),
        activation="quick_gelu",
        image_size=size,
        licence=f"Apache-2.0; to be downloaded by hand, see {_ZOO}",
    )


def _fine_tuned(tower: str, data: str) -> TowerInfo:
    """Text tower and temperature are OpenAI's; boxes come from a localiser in a file of its own."""
    return TowerInfo(
        f"region_clip_{tower}.ov_{data}",
        "",
        hub_files=(f"regionclip_finetuned-{data}_{tower}.pth",),
        base=f"{tower}.openai",
        licence=f"Apache-2.0; to be downloaded by hand, see {_ZOO}",
    )


DETECTORS: Mapping[str, Mapping[str, Any]] = {
    "emoji_boxes": {
        "classes": 112,
        "first": 3,
        "rpn": {"channels": 192, "width": 96},
        "crop": 64,
        "base": (0.25, 0.25, 0.5),  # chosen on the validation artist, where no rule by groups was better
        "novel": (0.25, 0.25, 0.5),
    },
    "ov_coco": {"classes": 48, "base": (1.0, 0.0, 0.0), "novel": (1.0, 0.0, 0.0)},  # without objectness
    "ov_lvis": {"classes": 866},
}
"""Fields of ``DetectorConfig`` by the data that a detector was fine-tuned on."""


@dataclass(frozen=True)
class RegionCLIP(Method):
    """Region classification; as a segmenter it reads every location as MaskCLIP does.

    Attributes:
        detector: Name in ``DETECTORS``; "" for a tower that was not fine-tuned. It follows from the weights.
    """

    detector: str = ""

    name = "region_clip"
    title = "RegionCLIP"
    paper = "Zhong et al., RegionCLIP: Region-based Language-Image Pretraining, CVPR 2022"
    reference = "microsoft/RegionCLIP"
    code_licence = "Apache-2.0"
    towers = (
        "vit_tiny.emoji", "vit_tiny.emoji_boxes", "rn_tiny.emoji", "rn50.openai", "rn50x4.openai",
        "rn50.cc3m", "rn50x4.cc3m",
        "rn50.ov_coco", "rn50.ov_lvis", "rn50x4.ov_coco", "rn50x4.ov_lvis",
    )  # fmt: skip
    trained = {  # noqa: RUF012
        "vit_tiny.emoji_boxes": TowerInfo(
            "region_clip_vit_tiny.emoji_boxes",
            "",
            sources=(str(ASSETS / "region_clip_vit_tiny.emoji_boxes.safetensors"),),
            base="vit_tiny.emoji",
            licence="Apache-2.0; learned from drawings under open licences, see ovseg/assets",
        ),
        "rn50.cc3m": _pretrained("rn50", "RN50", 224),
        "rn50x4.cc3m": _pretrained("rn50x4", "RN50x4", 288),
        "rn50.ov_coco": _fine_tuned("rn50", "coco"),
        "rn50.ov_lvis": _fine_tuned("rn50", "lvis"),
        "rn50x4.ov_coco": _fine_tuned("rn50x4", "coco"),
        "rn50x4.ov_lvis": _fine_tuned("rn50x4", "lvis"),
    }
    protocols = {  # noqa: RUF012
        "default": Protocol(
            "default",
            Resize(800, 1333, whole_patches=True, shrink="area"),
            steps=(Softmax(),),
            background="words",
        ),
        "ov_coco": _PAPER,
        "ov_lvis": replace(_PAPER, name="ov_lvis", words="lvis_v1.regionclip"),
        "emoji": EMOJI_PROTOCOL,
        "emoji_boxes": replace(EMOJI_PROTOCOL, name="emoji_boxes", resize=Resize(224, whole_patches=True)),
    }

    @property
    def readout(self) -> Readout:
        """The last block without its attention, with residual and MLP."""
        return Readout(identity, residual="own", mlp=True, pos_embed="bicubic")

    def read_resnet(self, tower: ModifiedResNet, image: Tensor) -> DenseFeatures:
        """The value path of the attention pool."""
        return tower.forward_dense(image)

    def build(self, clip: CLIP, readout: Readout) -> nn.Module:
        """A segmenter, or with ``detector`` a ``RegionDetector``.

        Raises:
            ValueError: There is no such detector.
        """
        if not self.detector:
            return super().build(clip, readout)
        from ovseg.methods.region_clip.detector import DetectorConfig, RegionDetector
        from ovseg.regions.rpn import RPNConfig

        if self.detector not in DETECTORS:
            raise ValueError(f"unknown detector {self.detector!r}; one of {', '.join(DETECTORS)}")
        fields = dict(DETECTORS[self.detector])
        if rpn := fields.pop("rpn", None):
            fields["rpn"] = RPNConfig(**rpn)
        return RegionDetector(clip, self, readout, DetectorConfig(**fields))

    @classmethod
    def owns(cls, state_dict: Mapping[str, Tensor]) -> bool:
        """Whether it is a checkpoint of detectron2 with a CLIP ResNet, or a fine-tuned detector of ours."""
        return "backbone.attnpool.q_proj.weight" in state_dict or "regressor.weight" in state_dict

    @classmethod
    def fields_of(cls, state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
        """Which detector it is, by the number of its words and whether it has a localiser."""
        if "regressor.weight" not in state_dict:
            return {}
        classes, own = len(state_dict["rows"]), any(name.startswith("localiser.") for name in state_dict)
        for name, fields in DETECTORS.items():
            if (fields["classes"], bool(fields.get("rpn"))) == (classes, own):
                return {"detector": name}
        raise ValueError(
            f"no detector with {classes} words {'and' if own else 'without'} a localiser is known"
        )

    @classmethod
    def convert(cls, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A checkpoint in our layout.

        Of a published one the teacher, the words of testing, OV-LVIS's mask head and a localiser merged with
        it are left out. A fine-tuned one has no text tower: its ``TowerInfo`` names the CLIP that has.

        Raises:
            ValueError: It has neither a text tower nor the words of training.
        """
        if "regressor.weight" in state_dict:
            return dict(state_dict)
        from ovseg.regions.converters import convert_region_clip

        weights = convert_region_clip(state_dict)
        out = {f"clip.visual.{name}": value for name, value in weights.visual.items()}
        if weights.regressor and weights.rows is not None:
            out |= {f"regressor.{name}": value for name, value in weights.regressor.items()}
            return out | {"rows": F.normalize(weights.rows, dim=-1)}
        if not weights.text:
            raise ValueError("this RegionCLIP checkpoint has neither a text tower nor a box regressor")
        out |= {f"clip.text.{name}": value for name, value in weights.text.items()}
        return out | {"clip.logit_scale": torch.tensor(math.log(1 / _TEMPERATURE))}
