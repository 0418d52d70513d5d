"""DINO, DINOv2 and MAE as auxiliary towers: timm's modules, our forward.

Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021; Oquab et al., DINOv2,
TMLR 2024; Darcet et al., Vision Transformers Need Registers, ICLR 2024; He et al., Masked Autoencoders, CVPR
2022.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ovseg.dense.features import DenseFeatures, Tap
from ovseg.dense.pos_embed import resize_grid
from ovseg.towers.auxiliary import AuxiliaryInfo, AuxiliaryTower
from ovseg.towers.checkpoints import check_fits, read_state_dict

__all__ = [
    "SelfSupervisedViT",
    "class_attention",
    "convert_vit",
    "create_vit",
    "load_vit",
    "read_taps",
]

_SITES = ("out", "ln_1", "q", "k", "v", "scores")


class SelfSupervisedViT(nn.Module):
    """A self-supervised ViT read densely.

    ``patches`` are the last block's output after the last LayerNorm. Taps keep the class token and the
    registers in front (``prefix`` tokens); ``(-1, "k")`` are the keys of the last block, heads concatenated.

    Args:
        vit: From ``create_vit``.
        info: Its row; normalisation and position rule are read.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, vit: nn.Module, info: AuxiliaryInfo) -> None:
        super().__init__()
        self.info = info
        self.vit: Any = vit
        self.register_buffer("mean", torch.tensor(info.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(info.std)[:, None, None], persistent=False)

    @property
    def stride(self) -> int:
        """Pixels per grid step."""
        return self.vit.patch_embed.patch_size[0]

    @property
    def prefix(self) -> int:
        """Tokens before the patches: the class token and the registers."""
        return self.vit.num_prefix_tokens

    @property
    def heads(self) -> int:
        """Attention heads of each block."""
        return self.vit.blocks[0].attn.num_heads

    @torch.no_grad()
    def forward(self, image01: Tensor, taps: tuple[Tap, ...] = ()) -> DenseFeatures:
        """See ``AuxiliaryTower``.

        Raises:
            ValueError: The image is smaller than a patch, or a tap names a block or site that is not there.
        """
        x, grid, found = self._run(image01, taps, whole=True)
        x = self.vit.norm(x)
        patches = x[:, self.prefix :].transpose(1, 2).unflatten(2, grid)
        return DenseFeatures(patches, x[:, 0], self.stride, "width", found)

    @torch.no_grad()
    def read_taps(self, image01: Tensor, taps: tuple[Tap, ...]) -> tuple[dict[Tap, Tensor], tuple[int, int]]:
        """Taps alone, and the grid (h, w): what comes after the last of them is not computed.

        Raises:
            ValueError: As in ``forward``.
        """
        _, grid, found = self._run(image01, taps, whole=False)
        return found, grid

    def _run(
        self, image01: Tensor, taps: tuple[Tap, ...], whole: bool
    ) -> tuple[Tensor, tuple[int, int], dict[Tap, Tensor]]:
        """Tokens (B, N, D) as far as they are needed, the grid, and what was asked for."""
        image = image01.to(self.mean.dtype)
        height, width = image.shape[-2:]
        grid = height // self.stride, width // self.stride
        if not all(grid):
            raise ValueError(
                f"an image of {height} x {width} pixels is smaller than a patch of {self.stride}; "
                "resize it first"
            )
        wanted = self._wanted(taps)
        last = len(self.vit.blocks) - 1 if whole else max((block for block, _ in wanted), default=-1)
        found: dict[Tap, Tensor] = {}
        x = self._embed((image - self.mean) / self.std)
        for i, block in enumerate(self.vit.blocks[: last + 1]):
            sites = {site for at, site in wanted if at == i}
            found.update({(i, site): value for site, value in self._inner(block, x, sites).items()})
            if whole or i < last or "out" in sites:
                x = block(x)
            if "out" in sites:
                found[i, "out"] = x
        return x, grid, {tap: found[at] for tap, at in zip(taps, wanted)}

    def _embed(self, image: Tensor) -> Tensor:
        vit = self.vit
        patches = vit.patch_embed.proj(image)  # (B, D, h, w)
        bare = vit.no_embed_class  # the table has no row for the class token
        positions = self._positions(
            vit.pos_embed[:, 0 if bare else 1 :], tuple(image.shape[-2:]), tuple(patches.shape[-2:])
        )
        patches = (patches + positions).flatten(2).transpose(1, 2)
        cls = vit.cls_token if bare else vit.cls_token + vit.pos_embed[:, :1]
        prefix = [cls] if vit.reg_token is None else [cls, vit.reg_token]
        return torch.cat([*(token.expand(len(patches), -1, -1) for token in prefix), patches], dim=1)

    def _positions(self, table: Tensor, size: tuple[int, ...], grid: tuple[int, ...]) -> Tensor:
        """(1, D, h, w). The authors leave the table as it is for square images of the trained grid only."""
        trained = self.vit.patch_embed.grid_size
        as_grid = table.transpose(1, 2).unflatten(2, trained)
        if grid == tuple(trained) and size[0] == size[1]:
            return as_grid
        return resize_grid(as_grid.float(), (grid[0], grid[1]), self.info.pos_embed).to(table.dtype)

    def _inner(self, block: Any, x: Tensor, sites: set[str]) -> dict[str, Tensor]:
        """What was asked for inside a block with the input (B, N, D)."""
        values = {}
        if sites - {"out"}:
            values["ln_1"] = block.norm1(x)
        if sites - {"out", "ln_1"}:
            values.update(zip("qkv", block.attn.qkv(values["ln_1"]).chunk(3, dim=-1)))
        if "scores" in sites:
            q, k = (values[name].unflatten(2, (self.heads, -1)).transpose(1, 2) for name in "qk")
            values["scores"] = q @ k.transpose(-1, -2) * block.attn.scale
        return {site: value for site, value in values.items() if site in sites}

    def _wanted(self, taps: tuple[Tap, ...]) -> list[Tap]:
        """The taps with their blocks counted from the start."""
        depth = len(self.vit.blocks)
        for block, site in taps:
            if not -depth <= block < depth or site not in _SITES:
                raise ValueError(
                    f"tap ({block}, {site!r}): {self.info.name} has {depth} blocks with the sites "
                    f"{', '.join(_SITES)}"
                )
        return [(block % depth, site) for block, site in taps]


def read_taps(
    tower: AuxiliaryTower, image01: Tensor, taps: tuple[Tap, ...]
) -> tuple[Mapping[Tap, Tensor], tuple[int, int]]:
    """Inner activations of any auxiliary tower and their grid (h, w), with no more work than they need.

    Args:
        tower: One that stops early, as ``SelfSupervisedViT`` does, or any other.
        image01: As the tower takes it.
        taps: As the tower takes them.
    """
    if isinstance(tower, SelfSupervisedViT):
        return tower.read_taps(image01, taps)
    features = tower(image01, taps)
    return features.taps, features.grid


def class_attention(q: Tensor, k: Tensor, heads: int, prefix: int = 1) -> Tensor:
    """How much the class token attends to each patch, from two taps of one block.

    Args:
        q: (B, N, D).
        k: (B, N, D).
        heads: Attention heads.
        prefix: Tokens before the patches.

    Returns:
        (B, heads, N - prefix), a part of the softmax over all N tokens.
    """
    query, keys = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (q[:, :1], k))
    scores = query @ keys.transpose(-1, -2) * query.shape[-1] ** -0.5
    return scores.softmax(dim=-1)[:, :, 0, prefix:]


def convert_vit(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """To timm's names, from those or the names in the files that DINO's, DINOv2's and MAE's authors publish.

    Drops what belongs to training: mask tokens, MAE's decoder, heads.
    """
    out = {
        name.replace("mlp.w12.", "mlp.fc1.").replace("mlp.w3.", "mlp.fc2."): value  # DINOv2's SwiGLU
        for name, value in state_dict.items()
        if not re.match(r"(mask_token|decoder_|head\.|fc_norm\.)", name)
    }
    if "register_tokens" in out:  # timm adds positions to patches only, and the class token's to that token
        out["reg_token"] = out.pop("register_tokens")
        out["cls_token"] = out["cls_token"] + out["pos_embed"][:, :1]
        out["pos_embed"] = out["pos_embed"][:, 1:]
    return out


def create_vit(info: AuxiliaryInfo) -> nn.Module:
    """timm's module of the architecture, without weights."""
    return timm.create_model(info.arch, pretrained=False, num_classes=0, **info.options)


def load_vit(info: AuxiliaryInfo, path: Path) -> SelfSupervisedViT:
    """A tower with its weights.

    Args:
        info: See ``auxiliary_info``.
        path: A file of timm or of the authors.

    Raises:
        CheckpointError: The file is damaged, or of another architecture.
    """
    weights = convert_vit(read_state_dict(path))
    with torch.device("meta"):  # no time goes into initial values
        vit = create_vit(info)
    check_fits(weights, vit, f"{path} as {info.arch}")
    vit.load_state_dict(weights, assign=True)
    return SelfSupervisedViT(vit.float(), info)
