"""CLIP's vision transformer (Radford et al., 2021), read densely in any way a ``Readout`` describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.dense.attention import inputs_of
from ovseg.dense.features import DenseFeatures, Tap
from ovseg.dense.pos_embed import resize_pos_embed
from ovseg.dense.readout import AttentionContext, Readout
from ovseg.towers.layers import Block, BlockConfig, Transformer

__all__ = ["ViTConfig", "VisionTransformer"]


@dataclass(frozen=True)
class ViTConfig:
    """Architecture of a CLIP ViT.

    Attributes:
        blocks: Width, depth, heads, activation, epsilon.
        patch_size: Pixels.
        image_size: (height, width) in pixels of the trained position table.
        output_dim: Dimension of the joint space.
        pre_norm: LayerNorm before the first block (all but CLIPA).
        pool: What the image embedding is: the class token, or the mean of the patches (CLIPA).
    """

    blocks: BlockConfig
    patch_size: int
    image_size: tuple[int, int]
    output_dim: int
    pre_norm: bool = True
    pool: Literal["tok", "avg"] = "tok"

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) patches of the trained position table."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size


class VisionTransformer(nn.Module):
    """CLIP ViT with open_clip's parameter names.

    Images of any size are taken; a remainder smaller than a patch at the right and bottom is not seen, as in
    a strided convolution. Images are RGB, already normalised with the mean and deviation of the weights.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        width, patch = config.blocks.width, config.patch_size
        tokens = 1 + config.grid[0] * config.grid[1]
        std = width**-0.5
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(std * torch.randn(width))
        self.positional_embedding = nn.Parameter(std * torch.randn(tokens, width))
        self.ln_pre = nn.LayerNorm(width, eps=config.blocks.ln_eps) if config.pre_norm else nn.Identity()
        self.transformer = Transformer(config.blocks)
        self.ln_post = nn.LayerNorm(width, eps=config.blocks.ln_eps)
        self.proj = nn.Parameter(std * torch.randn(width, config.output_dim))

    @property
    def blocks(self) -> list[Block]:
        """The transformer blocks, first to last."""
        return list(self.transformer.resblocks)  # type: ignore[arg-type]

    @property
    def stride(self) -> int:
        """Pixels per grid step."""
        return self.config.patch_size

    def grid_of(self, image: Tensor) -> tuple[int, int]:
        """(h, w) patches of an image (..., H, W).

        Raises:
            ValueError: The image is smaller than one patch.
        """
        p = self.config.patch_size
        h, w = image.shape[-2] // p, image.shape[-1] // p
        if not (h and w):
            raise ValueError(
                f"an image of {image.shape[-2]} x {image.shape[-1]} pixels is smaller than one patch "
                f"of {p} x {p}; resize it first"
            )
        return h, w

    def embed_patches(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, h * w, D), without positions. The patch convolution as one matrix product."""
        (h, w), p = self.grid_of(image), self.config.patch_size
        cells = image[..., : h * p, : w * p].unflatten(-1, (w, p)).unflatten(-3, (h, p))
        cells = cells.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # (B, h * w, 3 * p * p)
        return F.linear(cells, self.conv1.weight.flatten(1))

    def embed(self, image: Tensor, readout: Readout | None = None) -> Tensor:
        """(B, 3, H, W) to the tokens that enter the first block, (B, 1 + h * w, D), class token first."""
        readout = readout or Readout()
        patches = self.embed_patches(image)
        cls = self.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        positions = resize_pos_embed(
            self.positional_embedding, self.config.grid, self.grid_of(image), readout.pos_embed
        )
        return self.ln_pre(torch.cat([cls, patches], dim=1) + positions.to(patches.dtype))

    def tail(self, tokens: Tensor) -> Tensor:
        """The last LayerNorm and the projection: (..., D) to (..., C) in the joint space."""
        return self.ln_post(tokens) @ self.proj

    def forward(self, image: Tensor) -> Tensor:
        """The image embedding (B, C), not normalised: open_clip's ``encode_image``.

        Of the last block only the class token's row is computed, as nothing else leaves it.
        """
        x = self.embed(image)
        if self.config.pool == "avg":
            # open_clip's ``final_ln_after_pool``
            return self.tail(self.transformer(x)[:, 1:].mean(dim=1))
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x)
        normed = last.ln_1(x)
        (q, _, _), (_, k, v) = last.attn.qkv(normed[:, :1], "q"), last.attn.qkv(normed, "kv")
        mixed = F.scaled_dot_product_attention(q, k, v)  # type: ignore[arg-type]
        cls = x[:, :1] + last.ls_1(last.attn.project(mixed))
        return self.tail((cls + last.feed_forward(cls))[:, 0])

    def forward_dense(
        self, image: Tensor, readout: Readout | None = None, extra: Mapping[str, Any] | None = None
    ) -> DenseFeatures:
        """Dense features of a batch.

        Args:
            image: (B, 3, H, W), normalised.
            readout: How the last blocks are rewritten; by default the plain forward.
            extra: Passed to the attention function as ``ctx.extra``.

        Returns:
            ``patches`` (B, C, h, w); see ``DenseFeatures``.

        Raises:
            ValueError: The image is smaller than a patch, or a tap names a block that is not there.
        """
        readout = readout or Readout()
        return _DenseForward(self, readout, self.grid_of(image), extra or {})(image)


class _DenseForward:
    """One dense forward: keeps the taps while the blocks run."""

    def __init__(
        self, tower: VisionTransformer, readout: Readout, grid: tuple[int, int], extra: Mapping[str, Any]
    ) -> None:
        depth = len(tower.blocks)
        if readout.last_blocks > depth:
            raise ValueError(f"last_blocks={readout.last_blocks}, but the tower has {depth} blocks")
        self.tower, self.readout, self.grid, self.extra = tower, readout, grid, extra
        self.taps: dict[Tap, Tensor] = {}
        self.wanted: dict[int, list[Tap]] = {}
        for block, site in readout.taps:
            if not -depth <= block < depth:
                raise ValueError(f"tap ({block}, {site!r}): the tower has {depth} blocks")
            self.wanted.setdefault(block % depth, []).append((block, site))

    def __call__(self, image: Tensor) -> DenseFeatures:
        readout, blocks = self.readout, self.tower.blocks
        first = len(blocks) - readout.last_blocks
        x = self.tower.embed(image, readout)
        for i in range(first):
            x = self._plain(i, x)
        prefix = 1
        if readout.drop_cls:
            x, prefix = x[:, 1:], 0
        tokens, grid, prefix = self._rewritten(x, first, prefix)
        if readout.tail:
            tokens = self.tower.tail(tokens)
        cls = tokens[:, 0] if prefix else None
        patches = tokens[:, prefix:].transpose(1, 2).unflatten(2, grid)
        stride = self.tower.stride
        return DenseFeatures(patches, cls, stride, "joint" if readout.tail else "width", self.taps)

    def _rewritten(self, x: Tensor, first: int, prefix: int) -> tuple[Tensor, tuple[int, int], int]:
        """Runs the last blocks; returns the tokens, their grid, and the number of prefix tokens."""
        readout, blocks = self.readout, self.tower.blocks
        grid, total, collected = self.grid, None, x
        for i in range(first, len(blocks)):
            out, grid, prefix_out = self._attend(i, x, prefix)
            if readout.stream == "inplace":
                x, prefix, self.grid = self._finish(blocks[i], x, out), prefix_out, grid
                self._tap(i, "out", x)
                total = x
            elif readout.stream == "parallel":
                new = self._finish(blocks[i], x, out)
                total = new if total is None else total + new
                x = self._plain(i, x)
            else:
                collected = collected + out
                total = collected + blocks[i].feed_forward(collected) if readout.mlp else collected
                collected = total
                x = self._plain(i, x)
        assert total is not None
        return total, grid, prefix

    def _attend(self, i: int, x: Tensor, prefix: int) -> tuple[Tensor, tuple[int, int], int]:
        """The rewritten attention branch of block ``i`` on (B, N, D)."""
        block = self.tower.blocks[i]
        normed = block.ln_1(x)
        inplace = self.readout.stream == "inplace"
        inputs = inputs_of(self.readout.attention)
        if inplace:  # in the other streams the plain pass over the same block takes the taps
            self._tap(i, "ln_1", normed)
            inputs = self._tapped_inputs(i, inputs)
        q, k, v = block.attn.qkv(normed, inputs)
        if inplace:
            self._tap_projections(i, q, k, v, block.attn.scale)
        ctx = AttentionContext(self.grid, block.attn.scale, prefix, normed, self.taps, self.extra)
        mixed = self.readout.attention(q, k, v, ctx)
        grid = self.grid
        if isinstance(mixed, tuple):
            mixed, grid = mixed
            prefix = 0
            if self.readout.residual != "none":
                raise ValueError("attention that changes the grid needs a readout with residual='none'")
        return block.ls_1(block.attn.project(mixed)), grid, prefix

    def _finish(self, block: Block, x: Tensor, out: Tensor) -> Tensor:
        """Residual and MLP after the attention branch ``out``."""
        if self.readout.residual == "own":
            out = x + out
        elif self.readout.residual == "cls":
            out = x[:, :1] + out
        if self.readout.mlp:
            normed = block.ln_2(out)
            self._tap(self._index(block), "ln_2", normed)
            out = out + block.ls_2(block.mlp(normed))
        return out

    def _plain(self, i: int, x: Tensor) -> Tensor:
        """Block ``i`` as trained, with taps."""
        block = self.tower.blocks[i]
        if i not in self.wanted:
            return block(x)
        normed = block.ln_1(x)
        self._tap(i, "ln_1", normed)
        q, k, v = block.attn.qkv(normed)
        self._tap_projections(i, q, k, v, block.attn.scale)
        mixed = F.scaled_dot_product_attention(q, k, v)  # type: ignore[arg-type]
        x = x + block.ls_1(block.attn.project(mixed))
        normed = block.ln_2(x)
        self._tap(i, "ln_2", normed)
        x = x + block.ls_2(block.mlp(normed))
        self._tap(i, "out", x)
        return x

    def _index(self, block: Block) -> int:
        return self.tower.blocks.index(block)

    def _tapped_inputs(self, i: int, inputs: str) -> str:
        sites = {site for _, site in self.wanted.get(i, ())}
        if "scores" in sites:
            sites |= {"q", "k"}
        return "".join(name for name in "qkv" if name in inputs or name in sites)

    def _tap_projections(
        self, i: int, q: Tensor | None, k: Tensor | None, v: Tensor | None, scale: float
    ) -> None:
        for site, part in (("q", q), ("k", k), ("v", v)):
            if part is not None:
                self._tap(i, site, part.transpose(1, 2).flatten(2))
        if any(site == "scores" for _, site in self.wanted.get(i, ())):
            assert q is not None and k is not None
            self._tap(i, "scores", q @ k.transpose(-1, -2) * scale)

    def _tap(self, i: int, site: str, value: Tensor) -> None:
        for tap in self.wanted.get(i, ()):
            if tap[1] == site:
                self.taps[tap] = value
