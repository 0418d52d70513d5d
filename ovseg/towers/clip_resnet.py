"""CLIP's modified ResNet (Radford et al., 2021)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.dense.features import DenseFeatures

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


class AttentionPool2d(nn.Module):
    """Attention pooling with the mean of the map as the one query."""

    def __init__(self, grid: int, channels: int, heads: int, output_dim: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(grid**2 + 1, channels) / channels**0.5)
        self.k_proj = nn.Linear(channels, channels)
        self.q_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.c_proj = nn.Linear(channels, output_dim)
        self.grid = grid
        self.heads = heads
        for layer in (self.q_proj, self.k_proj, self.v_proj, self.c_proj):
            nn.init.normal_(layer.weight, std=channels**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Pools maps (B, C, g, g) of the trained grid to (B, output_dim).

        Raises:
            ValueError: The map's size differs from the trained grid.
        """
        if x.shape[-2:] != (self.grid, self.grid):
            raise ValueError(
                f"the attention pool takes {self.grid} x {self.grid} maps, got {tuple(x.shape[-2:])}"
            )
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
        tokens = tokens + self.positional_embedding.to(x.dtype)
        return self.attend(tokens[:, :1], tokens)[:, 0]

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
        channels = width
        for i, depth in enumerate(config.layers):
            planes = width * 2**i
            stage = [Bottleneck(channels, planes, stride=2 if i else 1)]
            channels = planes * 4
            stage += [Bottleneck(channels, planes) for _ in range(1, depth)]
            setattr(self, f"layer{i + 1}", nn.Sequential(*stage))
        grid = config.image_size // 32
        self.attnpool = AttentionPool2d(grid, width * 32, config.heads, config.output_dim)

    stride = 32

    def stem(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, width, H / 4, W / 4)."""
        x = F.relu(self.bn1(self.conv1(image)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.avgpool(F.relu(self.bn3(self.conv3(x))))

    def stages(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Feature maps of strides 4, 8, 16 and 32."""
        maps, x = [], self.stem(image)
        for i in range(1, 5):
            x = getattr(self, f"layer{i}")(x)
            maps.append(x)
        return tuple(maps)  # type: ignore[return-value]

    def forward(self, image: Tensor) -> Tensor:
        """The image embedding (B, C), not normalised: open_clip's ``encode_image``."""
        return self.attnpool(self.stages(image)[-1])

    def forward_dense(self, image: Tensor) -> DenseFeatures:
        """Every location's value through the pool's output projection (MaskCLIP, section 3.2).

        No position is added and no mean token takes part.

        Args:
            image: (B, 3, H, W), normalised.

        Returns:
            ``patches`` (B, C, h, w) of stride 32. ``taps[(-1, "k")]`` holds the keys of the pool (B, N, D),
            ``taps[(-1, "out")]`` the last stage's map as tokens.
        """
        maps = self.stages(image)[-1]
        tokens = maps.flatten(2).transpose(1, 2)
        pool = self.attnpool
        dense = pool.c_proj(pool.v_proj(tokens)).transpose(1, 2).unflatten(2, maps.shape[-2:])
        taps = {(-1, "k"): pool.k_proj(tokens), (-1, "out"): tokens}
        return DenseFeatures(dense, None, self.stride, "joint", taps)
