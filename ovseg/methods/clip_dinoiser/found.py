"""FOUND: Siméoni et al., Unsupervised Object Localization: Observing the Background, CVPR 2023.

CLIP-DINOiser's second teacher. One 1 x 1 convolution on the keys of DINO ViT-S/8 says where objects are. It
was trained on a coarse rule: the patch that gets the least attention is background, and so is everything
similar to it. ``ovseg.methods.clip_dinoiser.found_training`` has the rule and the losses.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ovseg.methods.clip_dinoiser.dino import DinoSource, last_block, open_dino
from ovseg.towers.auxiliary import AuxiliaryTower, require_auxiliary
from ovseg.towers.checkpoints import check_fits, read_state_dict
from ovseg.towers.download import fetch_weights
from ovseg.towers.table import TowerInfo

__all__ = ["Found"]

_PUBLISHED = TowerInfo(
    "found_dino_vit_s8",
    "",
    sources=("https://github.com/valeoai/FOUND/raw/main/data/weights/decoder_weights.pt",),
    licence="Apache-2.0",
)


class Found(nn.Module):
    """Saliency of patches, from images in [0, 1].

    Args:
        auxiliary: Name of a DINO tower, or a tower; published with ViT-S/8. It is frozen and no submodule.
        width: Of its keys, heads concatenated.
    """

    def __init__(self, auxiliary: DinoSource = "dino_vit_s8", width: int = 384) -> None:
        super().__init__()
        if isinstance(auxiliary, str):
            require_auxiliary(auxiliary)
        self._auxiliary = (auxiliary,)  # in a tuple, lest it becomes a submodule
        self.decoder = nn.Conv2d(width, 1, 1)

    @classmethod
    def pretrained(cls, allow_download: bool = True) -> Found:
        """The published weights.

        Raises:
            WeightsUnavailableError: They are not here and cannot be fetched.
            CheckpointError: The file is damaged.
        """
        return cls.from_file(fetch_weights(_PUBLISHED, allow_download=allow_download))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], auxiliary: DinoSource = "dino_vit_s8") -> Found:
        """Weights of the authors' training, or of ours (``FoundTrainer``).

        Args:
            path: The file.
            auxiliary: The DINO tower that it was trained on.

        Raises:
            FileNotFoundError: It is not there; says what makes it.
            CheckpointError: It is damaged or does not fit.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"no weights of FOUND at {path}: configs/clip_dinoiser/found_*.py train it"
            )
        state_dict = _convert(read_state_dict(Path(path)))
        weight = state_dict.get("decoder.weight")
        model = cls(auxiliary, 384 if weight is None else weight.shape[1])
        check_fits(state_dict, model, str(path))
        model.load_state_dict(state_dict)
        return model.eval().requires_grad_(False)

    def tower(self, image: Tensor) -> AuxiliaryTower:
        """DINO, where an image is and in its precision."""
        (source,) = self._auxiliary
        return open_dino(source, image)

    def forward(self, image01: Tensor) -> Tensor:
        """Logits (B, 1, h, w) of being an object, on DINO's grid, of images (B, 3, H, W)."""
        (keys,) = last_block(self.tower(image01), image01, "k")
        return self.decoder(keys)


def _convert(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """To our names, from the authors' (without a prefix) or those of a training (with a longer one)."""
    return {
        f"decoder.{name.rpartition('.')[2]}": value
        for name, value in state_dict.items()
        if name in ("weight", "bias") or "decoder." in name
    }
