"""RegionCLIP: Zhong et al., RegionCLIP: Region-based Language-Image Pretraining, CVPR 2022.

CLIP was trained to match whole images with captions, and tells regions apart badly. RegionCLIP trains its
image tower further on the proposals of an RPN: a frozen CLIP names each region from a pool of concepts, and
the student learns to match regions with those names, beside images with captions (section 3.2). A region is
RoIAlign of the ResNet's third stage, then the last stage and the attention pool (``ovseg.regions``). With a
ViT, which the paper does not have, a region is the mean of dense features, read without the last attention.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ovseg._lazy import torch
from ovseg.dense.attention import identity
from ovseg.dense.readout import Readout
from ovseg.inference.protocol import Protocol, Resize
from ovseg.inference.steps import Softmax
from ovseg.methods.method import EMOJI_PROTOCOL, Method
from ovseg.towers.table import TowerInfo

if TYPE_CHECKING:
    from torch import Tensor

    from ovseg.dense.features import DenseFeatures
    from ovseg.towers.clip_resnet import ModifiedResNet

__all__ = ["RegionCLIP"]

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


class RegionCLIP(Method):
    """Region classification; as a segmenter it reads every location as MaskCLIP does."""

    name = "region_clip"
    title = "RegionCLIP"
    paper = "Zhong et al., RegionCLIP: Region-based Language-Image Pretraining, CVPR 2022"
    reference = "microsoft/RegionCLIP"
    code_licence = "Apache-2.0"
    towers = ("vit_tiny.emoji", "rn50.openai", "rn50x4.openai", "rn50.cc3m", "rn50x4.cc3m")
    trained = {  # noqa: RUF012
        "rn50.cc3m": _pretrained("rn50", "RN50", 224),
        "rn50x4.cc3m": _pretrained("rn50x4", "RN50x4", 288),
    }
    protocols = {  # noqa: RUF012
        "default": Protocol(
            "default",
            Resize(800, 1333, whole_patches=True, shrink="area"),
            steps=(Softmax(),),
            background="words",
        ),
        "emoji": EMOJI_PROTOCOL,
    }

    @property
    def readout(self) -> Readout:
        """The last block without its attention, with residual and MLP."""
        return Readout(identity, residual="own", mlp=True, pos_embed="bicubic")

    def read_resnet(self, tower: ModifiedResNet, image: Tensor) -> DenseFeatures:
        """The value path of the attention pool."""
        return tower.forward_dense(image)

    @classmethod
    def owns(cls, state_dict: Mapping[str, Tensor]) -> bool:
        """Whether it is a checkpoint of detectron2 with a CLIP ResNet."""
        return "backbone.attnpool.q_proj.weight" in state_dict

    @classmethod
    def convert(cls, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A pretrained checkpoint as ``clip.*``; the teacher and what belongs to detectors is left out.

        Raises:
            ValueError: There is no text tower in it: fine-tuned detectors have none.
        """
        from ovseg.regions.converters import convert_region_clip

        weights = convert_region_clip(state_dict)
        if not weights.text:
            raise ValueError(
                "this RegionCLIP checkpoint has no text tower: it is a fine-tuned detector; load it with "
                "ovseg.models.detectors.converters.load_region_clip"
            )
        out = {f"clip.visual.{name}": value for name, value in weights.visual.items()}
        out |= {f"clip.text.{name}": value for name, value in weights.text.items()}
        return out | {"clip.logit_scale": torch.tensor(math.log(1 / _TEMPERATURE))}
