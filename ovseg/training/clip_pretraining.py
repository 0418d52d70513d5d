"""Trains a CLIP from scratch on generated scenes: captions, names, and the words of regions.

The towers are the package's own ``CLIP``; how the vision tower is read in training is in ``readers``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ovseg.datasets.emoji import WordGroup, training_texts, word_table
from ovseg.towers.clip import CLIP, architecture
from ovseg.towers.weights import load_clip
from ovseg.training.losses import (
    LossWeights,
    RegionTargets,
    caption_loss,
    name_loss,
    patch_loss,
    region_loss,
)
from ovseg.training.readers import reader_of
from ovseg.training.tokens import CompactTokenizer

__all__ = ["CLIPPretrainer", "clamp_scale", "whiten_patches"]

_MAX_SCALE = 100.0


class CLIPPretrainer(BaseModel):
    """A CLIP in training.

    Args:
        model: Architecture in the layout of open_clip's JSON files.
        groups: Words of EmojiScenes that the batches show. The token table is built for their names,
            synonyms and captions alone, and set into CLIP's full table on export.
        mean: Of the image normalisation, in 0..1.
        std: Of the image normalisation.
        weights: Fields of ``LossWeights``.
        dropout: Fields of ``PatchDropout``; ViTs only.
        interpolate: Share of the steps on small images that see the whole position table, scaled down, as at
            inference, rather than a window of it; ViTs only.
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
        interpolate: float | None = None,
        autocast: bool = True,
        start: str | None = None,
    ) -> None:
        super().__init__()
        self.weights, self.autocast = LossWeights(**weights or {}), autocast
        table = word_table()
        texts = training_texts(table, table.select(*groups))
        self.tokenizer = CompactTokenizer(texts, model["text_cfg"]["context_length"])
        compact = dict(model, text_cfg=dict(model["text_cfg"], vocab_size=len(self.tokenizer)))
        self.clip = CLIP(architecture(compact))
        self.visual = self.clip.visual
        self.reader = reader_of(self.visual, self.weights, dropout, interpolate)
        self.token_ids: Tensor
        self.register_buffer("token_ids", torch.tensor(self.tokenizer.token_ids))
        self.start = start
        if start is None:
            self.reader.start()
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
        kept = self.reader.kept(targets, step, generator)
        if kept is not None:
            targets = targets.take(kept)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            overall, dense = self.reader.read(self.normalise(image), kept, generator)
            with sdpa_kernel(SDPBackend.MATH):  # for short texts twice as fast as the fused kernel
                text = self.clip.encode_text(self.tokenizer(captions))
                rows = self.clip.encode_text(self.tokenizer(names))
        overall, text, rows = (F.normalize(x.float(), dim=-1) for x in (overall, text, rows))
        scale = self.clip.logit_scale.exp().clamp(max=_MAX_SCALE)
        w = self.weights
        losses = {
            "loss_caption": w.caption * caption_loss(overall, text, scale),
            "loss_name": w.name * name_loss(overall[single], rows, labels[single, 1], scale),
        }
        for (path, share), patches in zip(self.reader.paths.items(), dense):
            regions = region_loss(patches.float(), targets, rows, scale)
            pure = patch_loss(patches.float(), targets, rows, scale, generator)
            losses[f"loss_region_{path}"] = share * w.region * regions
            losses[f"loss_patch_{path}"] = share * w.patch * pure
        return losses


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
