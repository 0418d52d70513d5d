"""What FOUND learns from without labels: a rule from DINO's attention, edges of the image, and itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.methods.clip_dinoiser.bilateral import BilateralSolver, snap

__all__ = ["background_mask", "found_losses", "snapped"]


def background_mask(
    attention: Tensor,
    keys: Tensor,
    threshold: float = 0.3,
    *,
    grid: tuple[int, int] | None = None,
    around: int = 1,
) -> Tensor:
    """The coarse rule (section 3.1).

    Args:
        attention: (B, heads, N) attention of the class token to the patches, last block.
        keys: (B, N, heads * d) of the patches.
        threshold: Least cosine with the seed patch that makes a patch background.
        grid: Rows and columns of the patches; needed with ``around``.
        around: Side of the square of patches over which attention is averaged before the seed is chosen, odd;
            1 as published. Flat inner parts of a drawing get no attention either.

    Returns:
        (B, N) whether a patch is background.
    """
    above = (attention > attention.mean(dim=(1, 2), keepdim=True)).to(keys.dtype)
    spread = above.mean(dim=2) + 1e-10  # (B, heads): heads that look everywhere say little
    weight = (spread.sum(dim=1, keepdim=True) / spread).log()
    noticed = (attention * weight[:, :, None]).sum(dim=1)  # (B, N)
    if grid is not None and around > 1:
        wide = F.pad(noticed.view(-1, 1, *grid), [around // 2] * 4, mode="reflect")
        noticed = F.avg_pool2d(wide, around, 1).flatten(1)
    seed = noticed.argmin(dim=1)
    descriptors = keys.unflatten(2, (weight.shape[1], -1)) * weight[:, None, :, None]
    unit = F.normalize(descriptors.flatten(2), dim=2)
    cosine = unit @ unit[torch.arange(len(unit)), seed][:, :, None]
    return cosine[..., 0] > threshold


def snapped(masks: Tensor, solvers: Sequence[BilateralSolver], size: tuple[int, int]) -> Tensor:
    """Masks of patches, moved to the edges of their images by the bilateral solver.

    Args:
        masks: (B, 1, h, w), 0 or 1.
        solvers: One for each image.
        size: Pixels of the images (H, W).

    Returns:
        (B, 1, h, w), 0 or 1; a patch counts if any pixel that stands for it does, as in the authors' code.
    """
    found = []
    for mask, solver in zip(masks.float().cpu(), solvers):
        large = F.interpolate(mask[None], size, mode="bilinear", align_corners=False)[0, 0]
        fine = snap(large.numpy(), solver)
        if fine is not None:
            at_size = torch.from_numpy(fine)[None, None].float()
            mask = F.interpolate(at_size, mask.shape[1:], mode="bilinear", align_corners=False)[0] > 0
        found.append(mask.float())
    return torch.stack(found).to(masks.device)


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
