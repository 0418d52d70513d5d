"""Trains a small DINO on images alone: patches and images of two views must fall into the same groups.

A teacher, the running mean of the student, sorts the patches of each view into learned groups, equally filled
(Sinkhorn, as in SwAV, Caron et al., NeurIPS 2020). The student, which sees another crop in other colours and
with hidden blocks, must predict the group of each place (after iBOT, Zhou et al., ICLR 2022, but across
views, so that the position gives nothing away), and with its class token the group of the whole view (DINO,
Caron et al., ICCV 2021). The student alone also sees small crops.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from timm.layers import build_sincos2d_pos_embed
from torch import Tensor, nn

from ovseg.dense.pos_embed import resize_grid
from ovseg.towers.auxiliary import auxiliary_info
from ovseg.towers.dino import create_vit
from ovseg.training.views import View, random_view

__all__ = ["DINOPretrainer", "GroupingHead", "sinkhorn"]

_SCALED = 0.4  # of the steps see the whole position table, scaled down


@dataclass(frozen=True)
class Views:
    """What the student and the teacher see of an image.

    Attributes:
        sides: Least and largest side of the two large views, as shares of the image's side.
        share: Pixels of their side per pixel of the image's.
        small_sides: As ``sides``, of the small views.
        small_size: Pixels of the side of the small views.
        small: Number of small views.
        colours: Strength of the change of colours.
        hidden: Largest share of the patches of a large view that is hidden from the student.
    """

    sides: tuple[float, float] = (0.5, 1.0)
    share: float = 2 / 3
    small_sides: tuple[float, float] = (0.25, 0.5)
    small_size: int = 32
    small: int = 2
    colours: float = 0.5
    hidden: float = 0.6


class GroupingHead(nn.Module):
    """Tokens (..., D) to cosines (..., K) with K learned groups.

    Args:
        width: D.
        groups: K.
        hidden: Of the MLP.
        dim: Of the space in which groups and tokens meet.
    """

    def __init__(self, width: int, groups: int, hidden: int = 512, dim: int = 96) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.groups = nn.Parameter(F.normalize(torch.randn(groups, dim), dim=1))

    def forward(self, tokens: Tensor) -> Tensor:
        """See the class."""
        tokens = self.mlp(tokens)
        with torch.autocast("cpu", enabled=False):
            return F.normalize(tokens.float(), dim=-1) @ F.normalize(self.groups, dim=1).T


class _Network(nn.Module):
    """A ViT with a head for patches and one for the class token."""

    def __init__(self, vit: Any, patch_groups: int, image_groups: int) -> None:
        super().__init__()
        self.vit = vit
        width: int = vit.embed_dim
        self.mask_embedding = nn.Parameter(torch.zeros(width))
        self.patch_head = GroupingHead(width, patch_groups)
        self.image_head = GroupingHead(width, image_groups)

    def forward(
        self, image: Tensor, positions: Tensor, hidden: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cosines (B, P, K) of patches and (B, K') of images, for positions (B or 1, P, D)."""
        vit = self.vit
        patches = vit.patch_embed.proj(image).flatten(2).transpose(1, 2)
        if hidden is not None:
            patches = torch.where(hidden[..., None], self.mask_embedding.to(patches.dtype), patches)
        patches = patches + positions
        cls = (vit.cls_token + vit.pos_embed[:, :1]).to(patches.dtype).expand(len(patches), -1, -1)
        x = vit.norm(vit.blocks(torch.cat([cls, patches], dim=1)))
        return self.patch_head(x[:, 1:]), self.image_head(x[:, 0])


@dataclass(frozen=True)
class _Read:
    """A view, and its patches (B, K, n, n) and images (B, K') in terms of the groups."""

    view: View
    patches: Tensor
    images: Tensor


class DINOPretrainer(BaseModel):
    """A self-supervised ViT in training; ``teacher.vit`` is what is exported.

    Args:
        tower: Its row in ``ovseg.towers.auxiliary``.
        views: Fields of ``Views``.
        patch_groups: Number of groups of patches.
        image_groups: Number of groups of images.
        image_weight: Of the loss on class tokens; that on patches has weight 1.
        temperature: Of the student's softmax over groups.
        sharpness: Of the teacher's groups: the inverse of Sinkhorn's entropy weight.
        momentum: Of the teacher at the first and the last step.
        steps: Over which the momentum rises.
        autocast: Whether the ViT runs in bfloat16.
    """

    def __init__(
        self,
        tower: str,
        *,
        views: dict[str, Any] | None = None,
        patch_groups: int = 512,
        image_groups: int = 256,
        image_weight: float = 0.5,
        temperature: float = 0.1,
        sharpness: float = 20.0,
        momentum: tuple[float, float] = (0.98, 0.998),
        steps: int = 1,
        autocast: bool = True,
    ) -> None:
        super().__init__()
        self.info, self.views = auxiliary_info(tower), Views(**views or {})
        self.image_weight, self.temperature, self.sharpness = image_weight, temperature, sharpness
        self.momentum, self.steps, self.autocast = momentum, steps, autocast
        vit: Any = create_vit(self.info)
        self.student = _Network(vit, patch_groups, image_groups)
        self.grid: tuple[int, int] = vit.patch_embed.grid_size
        self.patch: int = vit.patch_embed.patch_size[0]
        for block in vit.blocks:  # the backward pass of torch's fused attention is slow on so few tokens
            block.attn.fused_attn = False
        with torch.no_grad():
            vit.pos_embed[0, 1:] = 0.6 * build_sincos2d_pos_embed(self.grid, vit.embed_dim, temperature=100)
        self.teacher = deepcopy(self.student).requires_grad_(False)
        self.mean, self.std = (torch.tensor(x).view(3, 1, 1) for x in (self.info.mean, self.info.std))

    def normalise(self, image: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 to (B, 3, S, S)."""
        return (image.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std

    def forward(  # type: ignore[override]
        self, image: Tensor, step: int, mode: str = "loss", **_: Any
    ) -> dict[str, Tensor]:
        """Losses of one batch of ``EmojiBatches``, of which only the images are read.

        Raises:
            ValueError: ``mode`` is not "loss".
        """
        if mode != "loss":
            raise ValueError(f"DINOPretrainer has only mode='loss', not {mode!r}; use .teacher.vit")
        generator = torch.Generator().manual_seed(step)
        image01, v = image.permute(0, 3, 1, 2).float() / 255, self.views
        size = max(1, round(v.share * image.shape[1] / self.patch)) * self.patch
        large = [random_view(image01, size, v.sides, v.colours, generator) for _ in range(2)]
        small = [
            random_view(image01, v.small_size, v.small_sides, v.colours, generator) for _ in range(v.small)
        ]
        with torch.no_grad():
            targets = self._targets(self._read(self.teacher, large, generator))
        read = self._read(self.student, large, generator, hide=True)
        read += self._read(self.student, small, generator)
        losses = [
            self._loss(seen, target)
            for i, seen in enumerate(read)
            for j, target in enumerate(targets)
            if i != j
        ]
        patch_loss, image_loss = (torch.stack(each).mean() for each in zip(*losses))
        return {"loss_patch": patch_loss, "loss_image": self.image_weight * image_loss}

    @torch.no_grad()
    def update_teacher(self, step: int) -> None:
        """Moves the teacher towards the student, the less the later the step."""
        first, last = self.momentum
        share = 1 - first - (last - first) * min(1.0, step / self.steps)
        for mean, new in zip(self.teacher.parameters(), self.student.parameters()):
            mean.lerp_(new, share)

    def _read(
        self, network: _Network, views: Sequence[View], generator: torch.Generator, hide: bool = False
    ) -> list[_Read]:
        """What a network makes of views of one size."""
        if not views:
            return []
        image = torch.cat([view.image for view in views])
        n = image.shape[2] // self.patch
        positions = self._positions(network.vit.pos_embed[:, 1:], len(image), n, generator)
        hidden = hide_blocks(len(image), n, self.views.hidden, generator) if hide else None
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            patches, images = network((image - self.mean) / self.std, positions, hidden)
        maps = patches.transpose(1, 2).unflatten(2, (n, n))
        return [_Read(*each) for each in zip(views, maps.chunk(len(views)), images.chunk(len(views)))]

    def _positions(self, table: Tensor, count: int, n: int, generator: torch.Generator) -> Tensor:
        """(B or 1, n * n, D): for each image a window of the table, or now and then all of it, scaled."""
        rows, columns = self.grid
        if torch.rand((), generator=generator) < _SCALED:
            grid = table.transpose(1, 2).unflatten(2, self.grid)
            return resize_grid(grid, (n, n), self.info.pos_embed).flatten(2).transpose(1, 2)
        top, left = (
            torch.randint(full - n + 1, (count, 1), generator=generator) + torch.arange(n)
            for full in (rows, columns)
        )
        return table[0, (top[:, :, None] * columns + left[:, None]).flatten(1)]

    def _targets(self, read: Sequence[_Read]) -> list[_Read]:
        """The groups into which the teacher sorts what it has read."""
        maps = torch.cat([each.patches for each in read])
        shares = sinkhorn(maps.transpose(0, 1).flatten(1).T * self.sharpness)
        maps = shares.T.unflatten(1, (len(maps), *maps.shape[2:])).transpose(0, 1)
        images = sinkhorn(torch.cat([each.images for each in read]) * self.sharpness)
        parts = zip(maps.chunk(len(read)), images.chunk(len(read)))
        return [_Read(each.view, *part) for each, part in zip(read, parts)]

    def _loss(self, seen: _Read, target: _Read) -> tuple[Tensor, Tensor]:
        """Cross-entropies on the patches that both views show, and on the views as a whole."""
        points = seen.view.points(seen.patches.shape[2])
        shares, inside = target.view.read(target.patches, points)
        patches = -(shares * (seen.patches / self.temperature).log_softmax(dim=1)).sum(dim=1)
        images = -(target.images * (seen.images / self.temperature).log_softmax(dim=1)).sum(dim=1)
        return (patches * inside).sum() / inside.sum().clamp(min=1), images.mean()


def hide_blocks(count: int, n: int, most: float, generator: torch.Generator) -> Tensor:
    """(B, n * n) bool: blocks of 2 x 2 patches, a share between 0 and ``most`` of each image."""
    half = -(-n // 2)
    share = most * torch.rand(count, 1, 1, generator=generator)
    blocks = torch.rand(count, half, half, generator=generator) < share
    return blocks.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, :n, :n].flatten(1)


@torch.no_grad()
def sinkhorn(logits: Tensor, iterations: int = 3) -> Tensor:
    """Shares (N, K) of each row in K groups, which together are equally full; rows sum to 1."""
    shares = (logits - logits.max()).exp()
    for _ in range(iterations):
        shares /= shares.sum(dim=0, keepdim=True).clamp(min=1e-8)
        shares /= shares.sum(dim=1, keepdim=True)
    return shares
