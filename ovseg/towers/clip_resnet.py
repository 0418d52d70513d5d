"""CLIP's modified ResNet (Radford et al., 2021)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.dense.features import DenseFeatures
from ovseg.dense.pos_embed import PosEmbedRule, resize_pos_embed

__all__ = ["AttentionPool2d", "ModifiedResNet", "ResNetConfig"]


@dataclass(frozen=True)
class ResNetConfig:
    """Architecture of a CLIP ResNet.

    Attributes:
        layers: Number of bottlenecks in each of the four stages.
        width: Channels of the stem; the last stage has 32 times as many.
        heads: Heads of the attention pool.
        image_size: Pixels; the pool's position table has (image_size / 32)^2 + 1 rows.
        output_dim: Dimension of the joint space.
    """

    layers: tuple[int, int, int, int]
    width: int
    heads: int
    image_size: int
    output_dim: int


class Bottleneck(nn.Module):
    """1x1, 3x3, average pool instead of a stride, 1x1."""

    def __init__(self, channels: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(planes, planes * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.downsample: nn.Sequential | None = None
        if stride > 1 or channels != planes * 4:
            self.downsample = nn.Sequential(
                OrderedDict(
                    [
                        ("-1", nn.AvgPool2d(stride)),
                        ("0", nn.Conv2d(channels, planes * 4, 1, bias=False)),
                        ("1", nn.BatchNorm2d(planes * 4)),
                    ]
                )
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(self.avgpool(out)))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


def _stage(channels: int, planes: int, depth: int, stride: int) -> nn.Sequential:
    first = Bottleneck(channels, planes, stride)
    return nn.Sequential(first, *(Bottleneck(planes * 4, planes) for _ in range(1, depth)))


class AttentionPool2d(nn.Module):
    """Attention pooling with the mean of the map as the one query."""

    def __init__(self, grid: int, channels: int, heads: int, output_dim: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.empty(grid**2 + 1, channels))
        self.k_proj = nn.Linear(channels, channels)
        self.q_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.c_proj = nn.Linear(channels, output_dim)
        self.grid = grid
        self.heads = heads
        layers = (self.q_proj, self.k_proj, self.v_proj, self.c_proj)
        for value in (self.positional_embedding, *(layer.weight for layer in layers)):
            nn.init.normal_(value, std=channels**-0.5)

    def forward(self, x: Tensor, pos_embed: PosEmbedRule = "bicubic_antialias") -> Tensor:
        """Pools maps (B, C, h, w) to (B, output_dim).

        Args:
            x: Of any size.
            pos_embed: How the position table is resized for grids other than the trained one.
        """
        return self.attend_mean(self.tokens(x, pos_embed))

    def forward_all(self, x: Tensor, pos_embed: PosEmbedRule | None = "bicubic_antialias") -> Tensor:
        """Attention with every position as a query, not the mean only (DenseCLIP, section 3.2).

        Args:
            x: (B, C, h, w).
            pos_embed: As in ``forward``; None adds no positions.

        Returns:
            (B, 1 + h * w, output_dim), the mean's token first.
        """
        tokens = self.tokens(x, pos_embed)
        return self.attend(tokens, tokens)

    def forward_values(self, x: Tensor) -> Tensor:
        """Each position's value through the output projection: (B, C, h, w) to (B, h * w, output_dim).

        No positions are added and no mean takes part (MaskCLIP, section 3.2).
        """
        return self.c_proj(self.v_proj(x.flatten(2).transpose(1, 2)))

    def tokens(self, x: Tensor, pos_embed: PosEmbedRule | None) -> Tensor:
        """(B, C, h, w) to tokens (B, 1 + h * w, C): the mean first; no positions if None."""
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
        if pos_embed is None:
            return tokens
        trained, grid = (self.grid, self.grid), (x.shape[-2], x.shape[-1])
        positions = resize_pos_embed(self.positional_embedding, trained, grid, pos_embed)
        return tokens + positions.to(x.dtype)

    def attend_mean(self, tokens: Tensor) -> Tensor:
        """Attention of the first token over all (B, N, C), projected: (B, output_dim).

        The same as ``attend`` with one query, which needs neither the keys nor the values of N tokens: the
        key projection moves to the query, the value projection behind the mixing. The key's bias adds the
        same to every score; it stays for training, where every parameter must have a gradient.
        """
        heads = (self.heads, -1)
        q = self.q_proj(tokens[:, 0]).unflatten(-1, heads).transpose(0, 1)  # (heads, B, D)
        query = (q @ self.k_proj.weight.unflatten(0, heads)).transpose(0, 1)  # (B, heads, C)
        bias = (q @ self.k_proj.bias.unflatten(0, heads)[..., None]).transpose(0, 1)  # (B, heads, 1)
        scores = (query @ tokens.transpose(1, 2) + bias) * q.shape[-1] ** -0.5
        mixed = scores.softmax(dim=-1) @ tokens  # (B, heads, C)
        values = mixed.transpose(0, 1) @ self.v_proj.weight.unflatten(0, heads).transpose(1, 2)
        return self.c_proj(values.transpose(0, 1).flatten(1) + self.v_proj.bias)

    def attend(self, query: Tensor, tokens: Tensor) -> Tensor:
        """Attention of (B, M, C) queries over (B, N, C) tokens, projected: (B, M, output_dim)."""
        parts = (self.q_proj(query), self.k_proj(tokens), self.v_proj(tokens))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.c_proj(mixed.transpose(1, 2).flatten(2))


class ModifiedResNet(nn.Module):
    """CLIP ResNet with open_clip's parameter names: three-layer stem, average pools for strides."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.avgpool = nn.AvgPool2d(2)
        one, two, three, four = config.layers
        self.layer1 = _stage(width, width, one, stride=1)
        self.layer2 = _stage(width * 4, width * 2, two, stride=2)
        self.layer3 = _stage(width * 8, width * 4, three, stride=2)
        self.layer4 = _stage(width * 16, width * 8, four, stride=2)
        grid = config.image_size // 32
        self.attnpool = AttentionPool2d(grid, width * 32, config.heads, config.output_dim)

    @property
    def stride(self) -> int:
        """Pixels per step of the last stage's grid."""
        return 32

    def stem(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, width, H / 4, W / 4)."""
        x = F.relu(self.bn1(self.conv1(image)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.avgpool(F.relu(self.bn3(self.conv3(x))))

    def stages(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Feature maps of strides 4, 8, 16 and 32."""
        one = self.layer1(self.stem(image))
        two = self.layer2(one)
        three = self.layer3(two)
        return one, two, three, self.layer4(three)

    def stage3(self, image: Tensor) -> Tensor:
        """The map of stride 16 alone, which regions are cut from."""
        return self.layer3(self.layer2(self.layer1(self.stem(image))))

    def forward(self, image: Tensor, pos_embed: PosEmbedRule = "bicubic_antialias") -> Tensor:
        """The image embedding (B, C), not normalised: open_clip's ``encode_image``.

        Args:
            image: (B, 3, H, W), normalised, of any size of at least 32 pixels.
            pos_embed: How the pool's position table is resized for sizes other than the trained one.
        """
        return self.attnpool(self.stages(image)[-1], pos_embed)

    def region_embedding(self, regions: Tensor, pos_embed: PosEmbedRule = "bicubic_antialias") -> Tensor:
        """Embeddings of regions of the third stage's map: the last stage and the attention pool.

        Args:
            regions: (N, C, s, s), cut by RoIAlign from the map of stride 16; with s twice the pool's trained
                grid (14 for RN50) no position is resized.
            pos_embed: As in ``forward``.

        Returns:
            (N, output_dim), not normalised.
        """
        return self.attnpool(self.layer4(regions), pos_embed)

    def forward_dense(
        self,
        image: Tensor,
        attention: Literal["value", "full"] = "value",
        pos_embed: PosEmbedRule | None = None,
    ) -> DenseFeatures:
        """Every location through the pool, without pooling.

        Args:
            image: (B, 3, H, W), normalised.
            attention: ``value``: each location's own value (MaskCLIP, section 3.2). ``full``: attention among
                all locations and their mean (DenseCLIP; an ablation of MaskCLIP).
            pos_embed: Only with ``full``: the rule for the positions, None to add none.

        Returns:
            ``patches`` (B, C, h, w) of stride 32; ``cls`` is the mean's token, only with ``full``.
            ``taps[(-1, "k")]`` holds the keys of the pool (B, N, D), without positions;
            ``taps[(-1, "out")]`` the last stage's map as tokens.

        Raises:
            ValueError: The attention is unknown, or positions are asked for with ``value``.
        """
        maps = self.stages(image)[-1]
        cls: Tensor | None = None
        if attention == "full":
            pooled = self.attnpool.forward_all(maps, pos_embed)
            cls, dense = pooled[:, 0], pooled[:, 1:]
        elif attention == "value" and pos_embed is None:
            dense = self.attnpool.forward_values(maps)
        else:
            raise ValueError(f"attention={attention!r} with pos_embed={pos_embed!r}; see the documentation")
        tokens = maps.flatten(2).transpose(1, 2)
        taps = {(-1, "k"): self.attnpool.k_proj(tokens), (-1, "out"): tokens}
        patches = dense.transpose(1, 2).unflatten(2, maps.shape[-2:])
        return DenseFeatures(patches, cls, self.stride, "joint", taps)
