"""SAM as an auxiliary tower: segment-anything's modules, our forward.

Kirillov et al., Segment Anything, ICCV 2023. The global attention of its image encoder over 64 x 64 patches
would take 0.8 GB a block in float32; it is computed in ranges of rows here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from segment_anything import sam_model_registry
from segment_anything.modeling.image_encoder import get_rel_pos
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor, nn

from ovseg.dense.features import DenseFeatures, Tap
from ovseg.dense.operators import row_blocks
from ovseg.towers.auxiliary import AuxiliaryInfo
from ovseg.towers.checkpoints import check_fits, read_state_dict

__all__ = ["GlobalAttention", "SamEncoding", "SamTower", "load_sam"]


@dataclass(frozen=True)
class GlobalAttention:
    """The attention of a block over all patches, with SAM's decomposed relative positions.

    Attributes:
        q: (heads, N, d).
        k: (heads, N, d).
        v: (heads, N, d).
        vertical: (h, h, d) embeddings of the offset between two rows of the grid.
        horizontal: (w, w, d) of two columns.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    vertical: Tensor
    horizontal: Tensor

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w), h * w = N."""
        return len(self.vertical), len(self.horizontal)

    def weights(self, rows: slice | Tensor, heads: slice = slice(None)) -> Tensor:
        """Attention after the softmax of some queries (heads, n, N)."""
        q = self.q[heads, rows]  # (heads, n, d)
        scores = (q * q.shape[-1] ** -0.5) @ self.k[heads].transpose(1, 2)
        by_row, by_col = (part[heads, rows] for part in self._offsets)
        scores = scores.unflatten(2, self.grid) + by_row[..., None] + by_col[:, :, None]
        return scores.flatten(2).softmax(dim=-1)

    @cached_property
    def _offsets(self) -> tuple[Tensor, Tensor]:
        """What the position adds to the score of a query: by the key's row (heads, N, h), by its column."""
        q = self.q.unflatten(1, self.grid)
        by_row = torch.einsum("ahwd,hkd->ahwk", q, self.vertical)
        by_col = torch.einsum("ahwd,wkd->ahwk", q, self.horizontal)
        return by_row.flatten(1, 2), by_col.flatten(1, 2)

    def mixed(self) -> Tensor:
        """(N, D) values after the attention, heads concatenated."""
        out = torch.empty_like(self.v)
        for head in range(len(self.q)):
            only = slice(head, head + 1)
            for rows in row_blocks(self.q.shape[1], self.q.shape[1]):
                out[only, rows] = self.weights(rows, only) @ self.v[only]
        return out.transpose(0, 1).flatten(1)


@dataclass(frozen=True)
class SamEncoding:
    """One image in SAM's encoder, up to the attention of its last block.

    Attributes:
        attention: Of the last block, over the padded square.
        grid: (h, w) patches that the image covers, from the top left.
        input_size: (H, W) in pixels of the image as the encoder saw it.
        finish: Runs the rest of the encoder.
    """

    attention: GlobalAttention
    grid: tuple[int, int]
    input_size: tuple[int, int]
    finish: Callable[[], Tensor]

    @cached_property
    def embedding(self) -> Tensor:
        """(1, C, h', w') of the padded square, for the mask decoder."""
        return self.finish()

    @cached_property
    def _inside(self) -> Tensor:
        """Indices of the patches that the image covers."""
        h, w = self.grid
        rows, cols = (torch.arange(n, device=self.attention.q.device) for n in (h, w))
        return (rows[:, None] * self.attention.grid[1] + cols).flatten()

    @property
    def values(self) -> Tensor:
        """(heads, h * w, d) of the last block."""
        return self.attention.v[:, self._inside]

    def weights(self, rows: slice) -> Tensor:
        """(heads, n, h * w) attention of the last block between patches of the image, not summing to one."""
        return self.attention.weights(self._inside[rows])[:, :, self._inside]


class SamTower(nn.Module):
    """SAM.

    Args:
        sam: Of segment-anything.
        info: Its row; the normalisation is read.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, sam: nn.Module, info: AuxiliaryInfo) -> None:
        super().__init__()
        self.info = info
        self.sam: Any = sam
        self.register_buffer("mean", torch.tensor(info.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(info.std)[:, None, None], persistent=False)

    @property
    def stride(self) -> int:
        """Pixels of SAM's square per grid step."""
        return self.sam.image_encoder.patch_embed.proj.stride[0]

    @property
    def side(self) -> int:
        """Of the square that the encoder takes, in pixels."""
        return self.sam.image_encoder.img_size

    @torch.no_grad()
    def forward(self, image01: Tensor, taps: tuple[Tap, ...] = ()) -> DenseFeatures:
        """The encoder's output. Images are stretched to SAM's square, as ProxyCLIP does.

        Raises:
            ValueError: Taps were asked for; ``encode`` gives those of the last block.
        """
        if taps:
            raise ValueError(
                f"{self.info.name} has no taps; use encode() for the attention of its last block"
            )
        image = image01.to(self.mean.dtype)
        image = F.interpolate(image, (self.side, self.side), mode="bilinear", align_corners=False)
        features = [self._start(one)[1]() for one in (image - self.mean) / self.std]
        return DenseFeatures(torch.cat(features), None, self.stride, "width")

    def _apply(self, fn: Any, recurse: bool = True) -> SamTower:
        """The mask decoder computes with pixel coordinates: it stays in float32, as its users have it."""
        super()._apply(fn, recurse)
        for part in (self.sam.prompt_encoder, self.sam.mask_decoder):
            part.float()
        return self

    @torch.no_grad()
    def encode(self, image: np.ndarray) -> SamEncoding:
        """An image (H, W, 3) uint8: its long side brought to SAM's, then padded, as SAM's predictor does."""
        resized = ResizeLongestSide(self.side).apply_image(image)
        pixels = torch.from_numpy(resized).to(self.mean.device).permute(2, 0, 1).to(self.mean.dtype) / 255
        height, width = pixels.shape[1:]
        padded = F.pad((pixels - self.mean) / self.std, (0, self.side - width, 0, self.side - height))
        attention, finish = self._start(padded)
        grid = max(height // self.stride, 1), max(width // self.stride, 1)
        return SamEncoding(attention, grid, (height, width), finish)

    def _start(self, image: Tensor) -> tuple[GlobalAttention, Callable[[], Tensor]]:
        """Of a normalised square (3, S, S): the last block's attention, and what runs the rest."""
        encoder = self.sam.image_encoder
        x = encoder.patch_embed(image[None]) + encoder.pos_embed  # (1, h, w, D)
        *blocks, last = encoder.blocks
        for block in blocks:
            x = block(x) if block.window_size else _after(block, x, _attention(block, x))
        attention = _attention(last, x)

        @torch.no_grad()
        def finish() -> Tensor:
            return encoder.neck(_after(last, x, attention).permute(0, 3, 1, 2))

        return attention, finish


def _attention(block: Any, x: Tensor) -> GlobalAttention:
    """Of a block without windows, whose input is (1, h, w, D)."""
    attn, (h, w) = block.attn, x.shape[1:3]
    qkv = attn.qkv(block.norm1(x)).view(h * w, 3, attn.num_heads, -1)
    q, k, v = qkv.permute(1, 2, 0, 3)
    return GlobalAttention(q, k, v, get_rel_pos(h, h, attn.rel_pos_h), get_rel_pos(w, w, attn.rel_pos_w))


def _after(block: Any, x: Tensor, attention: GlobalAttention) -> Tensor:
    """The output of a block, given its attention."""
    x = x + block.attn.proj(attention.mixed()).view_as(x)
    return x + block.mlp(block.norm2(x))


def load_sam(info: AuxiliaryInfo, path: Path) -> SamTower:
    """A tower with its weights.

    Args:
        info: See ``auxiliary_info``.
        path: A file of the authors.

    Raises:
        CheckpointError: The file is damaged, or of another architecture.
    """
    weights = read_state_dict(path)
    with torch.device("meta"):  # no time goes into initial values
        sam = sam_model_registry[info.arch]()
    check_fits(weights, sam, f"{path} as SAM {info.arch}")
    sam.load_state_dict(weights, assign=True)
    for name in ("pixel_mean", "pixel_std"):  # not in the file
        values = getattr(info, name.removeprefix("pixel_"))
        sam.register_buffer(name, 255 * torch.tensor(values)[:, None, None], persistent=False)
    return SamTower(sam.float(), info)
