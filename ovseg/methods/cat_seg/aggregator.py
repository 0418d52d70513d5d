"""CAT-Seg's learned head: from a cost volume to the logits of each class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.methods.cat_seg.classes import ClassAggregation
from ovseg.methods.cat_seg.config import AggregatorConfig
from ovseg.methods.cat_seg.decoder import Decoder
from ovseg.methods.cat_seg.spatial import SpatialAggregation

__all__ = ["Aggregator", "cost_volume"]

_RULED_OUT = -100.0  # logit of classes that are not among the kept ones


class Aggregator(nn.Module):
    """Cost aggregation (section 3.2 and 3.3).

    Args:
        config: Sizes.
    """

    def __init__(self, config: AggregatorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.embed = nn.Conv2d(config.templates, width, 7, padding=3)
        self.appearance = nn.Sequential(
            nn.Conv2d(config.embed_dim, config.appearance_dim, 3, padding=1), nn.ReLU()
        )
        self.text = nn.Sequential(nn.Linear(config.embed_dim, config.text_dim), nn.ReLU())
        self.layers = nn.ModuleList(AggregationLayer(config) for _ in range(config.layers))
        self.decoder = Decoder(width, config.decoder_dims, config.guidance_dims, config.decoder_guidance_dims)
        if config.residual:  # start between the cosines of words that are there and of others
            nn.init.constant_(self.decoder.head.bias, -config.residual / 4)  # type: ignore[arg-type]

    def forward(
        self,
        features: Tensor,
        text: Tensor,
        guidance: tuple[Tensor, Tensor, Tensor],
        pooling: tuple[int, int] = (1, 1),
        fading: float = 0.0,
    ) -> Tensor:
        """Logits (B, K, 4 h, 4 w).

        Args:
            features: (B, C, h, w) dense image features in the joint space.
            text: (K, T, C) text embeddings of the classes.
            guidance: Image features (B, C, h, w) that guide the spatial aggregation, and (B, G1, 2 h, 2 w)
                and (B, G2, 4 h, 4 w) that guide the decoder.
            pooling: Of the class attention, see ``ClassAggregation``.
            fading: Greatest share of the cosines of a class in an image that is taken off, by chance.

        Raises:
            ValueError: T is not the number of templates that the head was made for.
        """
        if text.shape[1] != self.config.templates:
            raise ValueError(
                f"the head was made for {self.config.templates} prompt templates, got {text.shape[1]}"
            )
        appearance = self.appearance(guidance[0]).permute(0, 2, 3, 1)  # (B, h, w, G)
        text_guidance = self.guide_by_text(text)
        costs = cost_volume(features, text)
        if fading:
            costs = costs * (1 - fading * torch.rand_like(costs[:, :, :1, :1, :1]))
        logits = [
            self._one(cost, image, text_guidance, (coarse, fine), pooling)
            for cost, image, coarse, fine in zip(costs, appearance, *guidance[1:])
        ]
        return torch.stack(logits)

    def _one(
        self,
        cost: Tensor,
        appearance: Tensor,
        text: Tensor,
        guidance: tuple[Tensor, Tensor],
        pooling: tuple[int, int],
    ) -> Tensor:
        """Logits (K, 4 h, 4 w) of one image from its cost volume (K, T, h, w)."""
        kept = self.kept_classes(cost)
        if kept is not None:
            cost, text = cost[kept], text[kept]
        x = self.embed(cost).permute(0, 2, 3, 1).contiguous()  # (K, h, w, C)
        for layer in self.layers:
            x = layer(x, appearance, text, pooling)
        logits = self.decoder(x, guidance)
        if self.config.residual:
            cosines = cost.mean(dim=1, keepdim=True)  # (K, 1, h, w)
            full = F.interpolate(cosines, logits.shape[1:], mode="bilinear", align_corners=False)[:, 0]
            logits = logits + self.config.residual * full
        if kept is None:
            return logits
        everything = logits.new_full((len(kept), *logits.shape[1:]), _RULED_OUT)
        return everything.index_copy(0, kept.nonzero()[:, 0], logits)

    def kept_classes(self, cost: Tensor) -> Tensor | None:
        """(K,) whether a class of the cost volume (K, T, h, w) goes on; None if all do.

        Those with the highest cosine anywhere under any prompt.
        """
        limit = self.config.pad_len
        if not limit or len(cost) <= limit:
            return None
        kept = torch.zeros(len(cost), dtype=torch.bool, device=cost.device)
        kept[cost.detach().flatten(1).amax(dim=1).topk(limit).indices] = True
        return kept

    def guide_by_text(self, text: Tensor) -> Tensor:
        """(K, T, C) to the text guidance (K, G)."""
        if 0 < self.config.pad_len < len(text):  # as published: then only, prompts are normalised first
            text = F.normalize(text, dim=-1)
        return self.text(F.normalize(text.mean(dim=1), dim=-1))


class AggregationLayer(nn.Module):
    """Spatial, then class aggregation."""

    def __init__(self, config: AggregatorConfig) -> None:
        super().__init__()
        width, heads = config.width, config.heads
        self.spatial = SpatialAggregation(width, config.appearance_dim, heads, config.window)
        self.classes = ClassAggregation(width, config.text_dim, heads, config.attention, config.pad_len)

    def forward(self, x: Tensor, appearance: Tensor, text: Tensor, pooling: tuple[int, int]) -> Tensor:
        """Cost embeddings (K, h, w, C)."""
        return self.classes(self.spatial(x, appearance), text, pooling)


def cost_volume(features: Tensor, text: Tensor) -> Tensor:
    """Cosine similarity of patches (B, C, h, w) and prompts (K, T, C): (B, K, T, h, w)."""
    patches, rows = F.normalize(features, dim=1), F.normalize(text, dim=-1)
    cost = rows.flatten(0, 1) @ patches.flatten(2)  # (B, K T, h w)
    return cost.unflatten(1, rows.shape[:2]).unflatten(3, features.shape[2:])
