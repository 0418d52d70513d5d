"""FOUND: Siméoni et al., Unsupervised Object Localization: Observing the Background, CVPR 2023.

CLIP-DINOiser's second teacher. One 1 x 1 convolution on the keys of DINO ViT-S/8 says where objects are. It
was trained on a coarse rule, which is here too: the patch that gets the least attention is background, and so
is everything similar to it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.towers.auxiliary import AuxiliaryTower, auxiliary_tower, require_auxiliary
from ovseg.towers.checkpoints import check_fits, read_state_dict
from ovseg.towers.download import fetch_weights
from ovseg.towers.table import TowerInfo

__all__ = ["Found", "background_mask", "found_losses"]

_TAP = (-1, "k")
_WEIGHTS = TowerInfo(
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

    def __init__(self, auxiliary: str | AuxiliaryTower = "dino_vit_s8", width: int = 384) -> None:
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
        stored = read_state_dict(fetch_weights(_WEIGHTS, allow_download=allow_download))
        state_dict = {f"decoder.{name.removeprefix('decoder.')}": value for name, value in stored.items()}
        model = cls()
        check_fits(state_dict, model, _WEIGHTS.name)
        model.load_state_dict(state_dict)
        return model.eval()

    def forward(self, image01: Tensor) -> Tensor:
        """Logits (B, 1, h, w) of being an object, on DINO's grid, of images (B, 3, H, W)."""
        (tower,) = self._auxiliary
        dino = auxiliary_tower(tower, image01.device, image01.dtype) if isinstance(tower, str) else tower
        found = dino(image01, (_TAP,))
        keys = found.taps[_TAP][:, -found.grid[0] * found.grid[1] :]
        return self.decoder(keys.transpose(1, 2).unflatten(2, found.grid))


def background_mask(attention: Tensor, keys: Tensor, threshold: float = 0.3) -> Tensor:
    """The coarse rule (section 3.1).

    Args:
        attention: (B, heads, N) attention of the class token to the patches, last block.
        keys: (B, N, heads * d) of the patches.
        threshold: Least cosine with the seed patch that makes a patch background.

    Returns:
        (B, N) whether a patch is background.
    """
    above = (attention > attention.mean(dim=(1, 2), keepdim=True)).to(keys.dtype)
    spread = above.mean(dim=2) + 1e-10  # (B, heads): heads that look everywhere say little
    weight = (spread.sum(dim=1, keepdim=True) / spread).log()
    seed = (attention * weight[:, :, None]).sum(dim=1).argmin(dim=1)
    descriptors = keys.unflatten(2, (weight.shape[1], -1)) * weight[:, None, :, None]
    unit = F.normalize(descriptors.flatten(2), dim=2)
    cosine = unit @ unit[torch.arange(len(unit)), seed][:, :, None]
    return cosine[..., 0] > threshold


def found_losses(logits: Tensor, coarse: Tensor, refined: Tensor, first_steps: bool) -> dict[str, Tensor]:
    """Losses of FOUND's training (section 3.2).

    Args:
        logits: (B, 1, h, w) of being an object.
        coarse: (B, 1, h, w) objects by the rule, refined at the borders (bilateral solver), 0 or 1.
        refined: (B, 1, h, w) the prediction above one half, refined likewise, 0 or 1.
        first_steps: The first 100 iterations, which learn from the rule; later ones from themselves.

    Returns:
        Weighted losses whose sum is the loss.
    """
    losses = {"loss_refined": 1.5 * F.binary_cross_entropy_with_logits(logits, refined)}
    if first_steps:
        losses["loss_coarse"] = F.binary_cross_entropy_with_logits(logits, coarse)
    else:
        own = (logits.detach() > 0).to(logits.dtype)
        losses["loss_own"] = 4.0 * F.binary_cross_entropy_with_logits(logits, own)
    return losses
