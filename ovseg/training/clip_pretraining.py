"""Trains a CLIP ViT from scratch on generated scenes: captions, names, and the words of regions.

The towers are the package's own ``CLIP``. What differs from its forward is here: images smaller than the
position table see a window of it, background patches may be dropped (FLIP, Li et al., 2023), and class
token and dense features come out of one pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn

from ovseg.datasets.emoji import WordGroup, training_texts, word_table
from ovseg.dense.pos_embed import resize_pos_embed
from ovseg.towers.clip import CLIP, architecture
from ovseg.towers.clip_vit import VisionTransformer
from ovseg.towers.weights import load_clip
from ovseg.training.losses import RegionTargets, caption_loss, name_loss, patch_loss, region_loss
from ovseg.training.tokens import CompactTokenizer

__all__ = ["CLIPPretrainer", "LossWeights", "PatchDropout"]

_MAX_SCALE = 100.0


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses; 0 leaves one out.

    Attributes:
        caption: Scenes against captions, as in CLIP.
        name: Single drawings against all names.
        region: Dense features averaged in exact masks against all names.
        patch: Single patches against all names.
        maskclip: Share of ``region`` and ``patch`` that reads the last block as MaskCLIP does (value path,
            then residual and MLP); the rest reads the bare value path.
    """

    caption: float = 1.0
    name: float = 1.0
    region: float = 1.0
    patch: float = 0.5
    maskclip: float = 0.6

    @property
    def dense(self) -> bool:
        """Whether masks are used at all."""
        return self.region > 0 or self.patch > 0


@dataclass(frozen=True)
class PatchDropout:
    """Drops patches of texture to save time.

    Attributes:
        keep: Share of the patches that stay; those that show objects stay first, where masks may be used.
        until: First step with all patches.
    """

    keep: float = 0.64
    until: int = 0


class CLIPPretrainer(BaseModel):
    """A CLIP in training.

    Args:
        model: Architecture in the layout of open_clip's JSON files, with a ViT.
        groups: Words of EmojiScenes that the batches show. The token table is built for their names,
            synonyms and captions alone, and set into CLIP's full table on export.
        mean: Of the image normalisation, in 0..1.
        std: Of the image normalisation.
        weights: Fields of ``LossWeights``.
        dropout: Fields of ``PatchDropout``.
        interpolate: Share of the steps on small images that see the whole position table, scaled down, as at
            inference, rather than a window of it.
        autocast: Whether the towers run in bfloat16.
        start: Name or file of a tower to train on from, as ``load_clip`` takes it; by default from scratch.
            Unlike a resume it needs neither the checkpoint nor the same words.
    """

    def __init__(
        self,
        model: Mapping[str, Any],
        groups: Sequence[WordGroup],
        mean: Sequence[float],
        std: Sequence[float],
        *,
        weights: Mapping[str, float] | None = None,
        dropout: Mapping[str, Any] | None = None,
        interpolate: float = 0.3,
        autocast: bool = True,
        start: str | None = None,
    ) -> None:
        super().__init__()
        self.weights, self.dropout = LossWeights(**weights or {}), PatchDropout(**dropout or {})
        self.interpolate, self.autocast = interpolate, autocast
        table = word_table()
        texts = training_texts(table, table.select(*groups))
        self.tokenizer = CompactTokenizer(texts, model["text_cfg"]["context_length"])
        compact = dict(model, text_cfg=dict(model["text_cfg"], vocab_size=len(self.tokenizer)))
        self.clip = CLIP(architecture(compact))
        if not isinstance(self.clip.visual, VisionTransformer):
            raise ValueError("CLIPPretrainer trains ViTs; vision_cfg describes a ResNet")
        self.visual: VisionTransformer = self.clip.visual
        self.token_ids: Tensor
        self.register_buffer("token_ids", torch.tensor(self.tokenizer.token_ids))
        self.start = start
        if start is None:
            start_positions(self.visual)
        else:
            self.clip.load_state_dict(self._weights_of(load_clip(start).model))
        self.mean, self.std = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)

    def _weights_of(self, other: CLIP) -> dict[str, Tensor]:
        """Those of a CLIP with the full token table; tokens it never saw (rows of zeros) start anew."""
        state = other.state_dict()
        rows = state["text.token_embedding.weight"][self.token_ids]
        fresh = self.clip.text.token_embedding.weight.detach()
        seen = rows.any(dim=1, keepdim=True)
        return {**state, "text.token_embedding.weight": torch.where(seen, rows, fresh)}

    def normalise(self, image: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 to (B, 3, S, S)."""
        return (image.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std

    def forward(  # type: ignore[override]
        self,
        image: Tensor,
        instances: Tensor,
        labels: Tensor,
        captions: Sequence[str],
        single: Tensor,
        names: Sequence[str],
        step: int,
        mode: str = "loss",
    ) -> dict[str, Tensor]:
        """Losses of one batch of ``EmojiBatches``, all by name.

        Raises:
            ValueError: ``mode`` is not "loss"; use ``.clip`` for inference.
        """
        if mode != "loss":
            raise ValueError(f"CLIPPretrainer has only mode='loss', not {mode!r}; use .clip for inference")
        generator = torch.Generator().manual_seed(step)
        targets = RegionTargets.from_instances(instances, labels, self.visual.stride)
        kept = self._kept_patches(targets, step, generator)
        if kept is not None:
            targets = targets.take(kept)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            overall, dense = self._encode_image(self.normalise(image), kept, generator)
            text = self.clip.encode_text(self.tokenizer(captions))
            rows = self.clip.encode_text(self.tokenizer(names))
        overall, text, rows = (F.normalize(x.float(), dim=-1) for x in (overall, text, rows))
        scale = self.clip.logit_scale.exp().clamp(max=_MAX_SCALE)
        w = self.weights
        losses = {
            "loss_caption": w.caption * caption_loss(overall, text, scale),
            "loss_name": w.name * name_loss(overall[single], rows, labels[single, 1], scale),
        }
        for (path, share), patches in zip((("maskclip", w.maskclip), ("value", 1 - w.maskclip)), dense):
            regions = region_loss(patches.float(), targets, rows, scale)
            pure = patch_loss(patches.float(), targets, rows, scale, generator)
            losses[f"loss_region_{path}"] = share * w.region * regions
            losses[f"loss_patch_{path}"] = share * w.patch * pure
        return losses

    def _kept_patches(self, targets: RegionTargets, step: int, generator: torch.Generator) -> Tensor | None:
        """(B, N) indices of the patches that stay, or None for all."""
        if step >= self.dropout.until or self.dropout.keep >= 1:
            return None
        texture = targets.shares[..., 0]  # (B, P)
        order = torch.rand(texture.shape, generator=generator)
        if self.weights.dense:  # a training on pairs must not look at masks
            order = order + (texture < 0.85)
        return order.topk(int(self.dropout.keep * texture.shape[1]), dim=1).indices

    def _positions(self, grid: tuple[int, int], generator: torch.Generator) -> Tensor:
        """(1 + h * w, D): a random window of the position table, or now and then all of it, scaled."""
        full, table = self.visual.config.grid, self.visual.positional_embedding
        if torch.rand((), generator=generator) < self.interpolate:
            return resize_pos_embed(table, full, grid, "bicubic_antialias")
        top, left = (int(torch.randint(f - g + 1, (), generator=generator)) for f, g in zip(full, grid))
        window = table[1:].unflatten(0, full)[top : top + grid[0], left : left + grid[1]]
        return torch.cat([table[:1], window.flatten(0, 1)])

    def _encode_image(
        self, image: Tensor, kept: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Embeddings (B, C) and dense features (B, N, C): as MaskCLIP reads them, and of the value path."""
        visual = self.visual
        positions = self._positions(visual.grid_of(image), generator)
        x = visual.embed_patches(image) + positions[1:]
        if kept is not None:
            x = x.gather(1, kept[..., None].expand(-1, -1, x.shape[2]))
        cls = (visual.class_embedding + positions[0]).to(x.dtype).expand(len(x), 1, -1)
        x = visual.ln_pre(torch.cat([cls, x], dim=1))
        *blocks, last = visual.blocks
        for block in blocks:
            x = block(x)
        q, k, v = last.attn.qkv(last.ln_1(x))
        mixed = F.scaled_dot_product_attention(q[:, :, :1], k, v)  # type: ignore[index, arg-type]
        cls = x[:, :1] + last.ls_1(last.attn.project(mixed))
        overall = visual.tail(cls + last.feed_forward(cls))[:, 0]
        if not self.weights.dense:
            return overall, ()
        value = last.ls_1(last.attn.project(v[:, :, 1:]))  # type: ignore[index]
        full = x[:, 1:] + value
        return overall, (visual.tail(full + last.feed_forward(full)), visual.tail(value))


@torch.no_grad()
def start_positions(visual: VisionTransformer, amplitude: float = 0.6) -> None:
    """Starts the learned positions from two-dimensional sines and cosines.

    From CLIP's random start they take longer to learn than a short training lasts.
    """
    h, w = visual.config.grid
    quarter = visual.config.blocks.width // 4
    speed = 100.0 ** (-torch.arange(quarter) / quarter)
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    angles = [axis.reshape(-1, 1) * speed for axis in (rows, columns)]
    table = torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)
    visual.positional_embedding[1:] = amplitude * table


@torch.no_grad()
def whiten_patches(conv1: nn.Conv2d, image: Tensor) -> None:
    """Starts the patch projection as the whitened principal components of the patches of some images.

    Args:
        conv1: The tower's patch projection, D = 3 * p * p at most.
        image: (B, 3, S, S), normalised.
    """
    p = conv1.kernel_size[0]
    patches = F.unfold(image, p, stride=p).transpose(1, 2).flatten(0, 1)  # (B * P, 3 * p * p)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    components = 0.8 * (vectors / (values + 0.02).sqrt()).T.flip(0)
    conv1.weight.copy_(components[: conv1.out_channels].view_as(conv1.weight))


def clamp_scale(logit_scale: Tensor) -> None:
    """Keeps the temperature in CLIP's bounds, in place."""
    with torch.no_grad():
        logit_scale.clamp_(0, math.log(_MAX_SCALE))
