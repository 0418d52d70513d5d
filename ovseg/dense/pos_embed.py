"""Resizing learned position embeddings.

Published numbers depend on the rule, which belongs to the method, not to the weights: relative differences of
3 to 14 % were measured between them. All agree at the trained grid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from ovseg._lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PosEmbedRule", "resize_grid", "resize_pos_embed"]

PosEmbedRule = Literal["bicubic", "bicubic_offset", "bicubic_antialias", "bilinear"]


def resize_grid(grid_embed: Tensor, size: tuple[int, int], rule: PosEmbedRule) -> Tensor:
    """Resizes (1, D, g, g) to (1, D, h, w).

    Args:
        grid_embed: (1, D, g, g) embeddings of the trained grid.
        size: (h, w).
        rule: ``bicubic`` to an explicit size (mmsegmentation; MaskCLIP, CLIP-DINOiser, LPOSS).
            ``bicubic_offset`` samples with the scale (h + 0.1) / g, as in DINO's code (the SCLIP family).
            ``bicubic_antialias`` as in timm and open_clip's loader (GEM). ``bilinear`` (DenseCLIP).

    Raises:
        ValueError: The rule is unknown.
    """
    if rule == "bicubic_offset":
        g_h, g_w = grid_embed.shape[-2:]
        scale = ((size[0] + 0.1) / g_h, (size[1] + 0.1) / g_w)
        return F.interpolate(grid_embed, scale_factor=scale, mode="bicubic", align_corners=False)
    if rule not in get_args(PosEmbedRule):
        raise ValueError(f"unknown position-embedding rule {rule!r}; one of {get_args(PosEmbedRule)}")
    mode = "bilinear" if rule == "bilinear" else "bicubic"
    return F.interpolate(
        grid_embed, size=size, mode=mode, align_corners=False, antialias=rule == "bicubic_antialias"
    )


def resize_pos_embed(
    table: Tensor, trained: tuple[int, int], grid: tuple[int, int], rule: PosEmbedRule
) -> Tensor:
    """Fits a position table to another grid; the class token's row is kept.

    Args:
        table: (1 + g_h * g_w, D), class token first.
        trained: (g_h, g_w) the grid of the table.
        grid: (h, w) wanted.
        rule: See ``resize_grid``. With ``bicubic_offset`` the table is used as it is whenever the number of
            patches is the trained one, even on a grid of another shape: the references test the count only.

    Returns:
        (1 + h * w, D).
    """
    same = grid[0] * grid[1] == trained[0] * trained[1] if rule == "bicubic_offset" else grid == trained
    if same:
        return table
    cls, patches = table[:1], table[1:]
    as_grid = patches.T.reshape(1, -1, *trained)
    if as_grid.dtype in (torch.bfloat16, torch.float16):
        as_grid = as_grid.float()
    resized = resize_grid(as_grid, grid, rule)
    return torch.cat([cls, resized.flatten(2)[0].T.to(cls.dtype)])
