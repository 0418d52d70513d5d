"""CLIP's vision transformer (Radford et al., 2021), read densely in any way a ``Readout`` describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.dense.attention import inputs_of, query_key
from ovseg.dense.features import DenseFeatures, Tap, TapSite
from ovseg.dense.pos_embed import PosEmbedRule, resize_pos_embed
from ovseg.dense.readout import AttentionContext, AttentionFunction, Readout
from ovseg.towers.layers import Block, BlockConfig, Transformer
from ovseg.towers.linear import linear

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
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(tokens, width))
        self.ln_pre = nn.LayerNorm(width, eps=config.blocks.ln_eps) if config.pre_norm else nn.Identity()
        self.transformer = Transformer(config.blocks)
        self.ln_post = nn.LayerNorm(width, eps=config.blocks.ln_eps)
        self.proj = nn.Parameter(torch.empty(width, config.output_dim))
        for value in (self.class_embedding, self.positional_embedding, self.proj):
            nn.init.normal_(value, std=width**-0.5)

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
        return linear(cells, self.conv1.weight.flatten(1))

    def embed(self, image: Tensor, pos_embed: PosEmbedRule = "bicubic_antialias") -> Tensor:
        """(B, 3, H, W) to the tokens that enter the first block, (B, 1 + h * w, D), class token first."""
        patches = self.embed_patches(image)
        cls = self.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        grid = self.grid_of(image)
        positions = resize_pos_embed(self.positional_embedding, self.config.grid, grid, pos_embed)
        return self.ln_pre(torch.cat([cls, patches], dim=1) + positions.to(patches.dtype))

    def tail(self, tokens: Tensor) -> Tensor:
        """The last LayerNorm and the projection: (..., D) to (..., C) in the joint space."""
        return linear(self.ln_post(tokens), self.proj.T)

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
        self,
        image: Tensor,
        readout: Readout | None = None,
        extra: Mapping[str, Any] | None = None,
        feedback: Callable[[DenseFeatures], Mapping[str, Any]] | None = None,
    ) -> DenseFeatures:
        """Dense features of a batch.

        Args:
            image: (B, 3, H, W), normalised.
            readout: How the last blocks are rewritten; by default the plain forward.
            extra: Passed to the attention function as ``ctx.extra``.
            feedback: Is called with the features; then the rewritten blocks are run once more, with what it
                returns added to ``ctx.extra`` (ResCLIP).

        Returns:
            ``patches`` (B, C, h, w); see ``DenseFeatures``.

        Raises:
            ValueError: The image is smaller than a patch, or a tap names a block that is not there.
        """
        readout = readout or Readout()
        return _DenseForward(self, readout, self.grid_of(image), extra or {})(image, feedback)


class _DenseForward:
    """One dense forward: what changes while the blocks run."""

    def __init__(
        self, tower: VisionTransformer, readout: Readout, grid: tuple[int, int], extra: Mapping[str, Any]
    ) -> None:
        self.tower, self.readout, self.extra = tower, readout, extra
        self.blocks = tower.blocks
        self.grid, self.prefix = grid, 1
        self.taps: dict[Tap, Tensor] = {}
        self.wanted = _wanted(readout.taps, len(self.blocks))
        if readout.last_blocks > len(self.blocks):
            raise ValueError(
                f"last_blocks={readout.last_blocks}, but the tower has {len(self.blocks)} blocks"
            )

    def __call__(
        self, image: Tensor, feedback: Callable[[DenseFeatures], Mapping[str, Any]] | None = None
    ) -> DenseFeatures:
        readout = self.readout
        first = len(self.blocks) - readout.last_blocks
        x = self.tower.embed(image, readout.pos_embed)
        for i in range(first):
            x = self._plain(i, x)
        if readout.drop_cls:
            x, self.prefix = x[:, 1:], 0
        start = self.grid, self.prefix
        features = self._read(x, first)
        if feedback is not None:
            self.extra = {**self.extra, **feedback(features)}
            self.grid, self.prefix = start  # the attention may have changed them
            features = self._read(x, first)
        return features

    def _read(self, x: Tensor, first: int) -> DenseFeatures:
        """The rewritten blocks, from ``first`` on, and what follows them."""
        readout = self.readout
        streams = {"inplace": self._inplace, "parallel": self._parallel, "accumulate": self._accumulate}
        tokens = streams[readout.stream](x, first)
        if readout.tail:
            tokens = self.tower.tail(tokens)
        cls = tokens[:, 0] if self.prefix else None
        patches = tokens[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)
        space: Literal["joint", "width"] = "joint" if readout.tail else "width"
        return DenseFeatures(patches, cls, self.tower.stride, space, self.taps)

    def _inplace(self, x: Tensor, first: int) -> Tensor:
        for i in range(first, len(self.blocks)):
            out = self._attend(i, x, self.readout.attention)
            x = self._finish(i, x, out, self.readout.residual, self.readout.mlp)
        return x

    def _parallel(self, x: Tensor, first: int) -> Tensor:
        total: Tensor | None = None
        for i in range(first, len(self.blocks)):
            out = self._attend(i, x, self.readout.attention, tap=False)
            new = self._finish(i, x, out, self.readout.residual, self.readout.mlp, tap=False)
            total = new if total is None else total + new
            x = self._plain(i, x)
        assert total is not None  # a readout rewrites at least one block
        return total

    def _accumulate(self, x: Tensor, first: int) -> Tensor:
        second = x
        for i in range(first, len(self.blocks)):
            out = self._attend(i, x, self.readout.attention, tap=False)
            second = self._finish(i, second, out, "own", self.readout.mlp, tap=False)
            x = self._plain(i, x)
        return second

    def _plain(self, i: int, x: Tensor) -> Tensor:
        """Block ``i`` as trained."""
        if not self.wanted[i]:
            return self.blocks[i](x)
        return self._finish(i, x, self._attend(i, x, query_key), "own", True)

    def _attend(self, i: int, x: Tensor, attention: AttentionFunction, tap: bool = True) -> Tensor:
        """The attention branch of block ``i`` on (B, N, D). Of two streams, the plain one is tapped."""
        block, scale = self.blocks[i], self.blocks[i].attn.scale
        sites = {site for _, site in self.wanted[i]} if tap else set()
        normed = block.ln_1(x)
        q, k, v = block.attn.qkv(normed, _projections(attention, sites))
        if sites:
            self._tap_attention(i, sites, normed, {"q": q, "k": k, "v": v}, scale)
        ctx = AttentionContext(self.grid, scale, self.prefix, normed, self.taps, self.extra)
        mixed = attention(q, k, v, ctx)
        if isinstance(mixed, tuple):
            if (self.readout.stream, self.readout.residual) != ("inplace", "none"):
                raise ValueError("an attention that changes the grid needs stream='inplace', residual='none'")
            mixed, self.grid = mixed
            self.prefix = 0
        return block.ls_1(block.attn.project(mixed))

    def _finish(self, i: int, x: Tensor, out: Tensor, residual: str, mlp: bool, tap: bool = True) -> Tensor:
        """Residual and MLP after the attention branch ``out`` of block ``i``, whose input is ``x``."""
        block = self.blocks[i]
        if residual == "own":
            out = x + out
        elif residual == "cls":
            out = x[:, :1] + out
        if mlp:
            normed = block.ln_2(out)
            if tap:
                self._tap(i, ln_2=normed)
            out = out + block.ls_2(block.mlp(normed))
        if tap:
            self._tap(i, out=out)
        return out

    def _tap_attention(
        self, i: int, sites: set[str], normed: Tensor, parts: dict[str, Tensor | None], scale: float
    ) -> None:
        self._tap(i, ln_1=normed)
        for site, part in parts.items():
            if site in sites and part is not None:
                self._tap(i, **{site: part.transpose(1, 2).flatten(2)})
        q, k = parts["q"], parts["k"]
        if "scores" in sites and q is not None and k is not None:
            self._tap(i, scores=q @ k.transpose(-1, -2) * scale)

    def _tap(self, i: int, **values: Tensor) -> None:
        for tap in self.wanted[i]:
            if tap[1] in values:
                self.taps[tap] = values[tap[1]]


def _projections(attention: AttentionFunction, sites: set[str]) -> str:
    """Which of q, k and v are needed by the attention function or by a tap."""
    needed = {*inputs_of(attention), *sites, *("qk" if "scores" in sites else "")}
    return "".join(name for name in "qkv" if name in needed)


def _wanted(taps: tuple[Tap, ...], depth: int) -> list[list[Tap]]:
    """The taps of each block, under the keys they were asked for."""
    wanted: list[list[Tap]] = [[] for _ in range(depth)]
    for block, site in taps:
        if not -depth <= block < depth or site not in get_args(TapSite):
            raise ValueError(
                f"tap ({block}, {site!r}): the tower has {depth} blocks, with the sites "
                f"{', '.join(get_args(TapSite))}"
            )
        wanted[block].append((block, site))
    return wanted
