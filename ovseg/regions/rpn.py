"""A region proposal network on the tokens of a ViT (Ren et al., Faster R-CNN, 2015), without mmdet."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.regions.boxes import decode_boxes
from ovseg.regions.proposals import Proposals, select_proposals

__all__ = ["ProposalNetwork", "RPNConfig"]

_UNIT = (1.0, 1.0, 1.0, 1.0)  # RPNs regress without weights


@dataclass(frozen=True)
class RPNConfig:
    """A proposal network on one map.

    Attributes:
        channels: D of the map.
        width: Channels of the convolutions.
        convs: Their number.
        scales: Square roots of the anchors' areas, in steps of the map.
        ratios: Heights over widths.
        before: Boxes that enter NMS.
        threshold: IoU above which a box repeats another.
        after: Boxes that leave.
    """

    channels: int
    width: int
    convs: int = 2
    scales: tuple[float, ...] = (4, 6, 9, 14, 21)
    ratios: tuple[float, ...] = (0.6, 1.0, 1.67)
    before: int = 500
    threshold: float = 0.7
    after: int = 30

    @property
    def anchors(self) -> int:
        """In each place."""
        return len(self.scales) * len(self.ratios)


class ProposalNetwork(nn.Module):
    """Objectness and boxes from the tokens of a ViT, each first brought to mean 0 and deviation 1.

    Parameters have the names that mmdet's ``RPNHead`` gives them.

    Args:
        config: See there.
    """

    def __init__(self, config: RPNConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.channels] + [config.width] * config.convs
        self.rpn_conv = nn.Sequential(*(_Conv(a, b) for a, b in pairwise(widths)))
        self.rpn_cls = nn.Conv2d(config.width, config.anchors, 1)
        self.rpn_reg = nn.Conv2d(config.width, 4 * config.anchors, 1)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D, h, w) to objectness logits (B, A, h, w) and deltas (B, 4A, h, w)."""
        normed = F.layer_norm(tokens.movedim(1, -1), tokens.shape[1:2]).movedim(-1, 1)
        hidden = self.rpn_conv(normed)
        return self.rpn_cls(hidden), self.rpn_reg(hidden)

    def propose(self, tokens: Tensor, stride: int) -> Proposals:
        """Boxes in one image, the best first.

        Args:
            tokens: (1, D, h, w).
            stride: Pixels per step.

        Returns:
            In pixels of the network's input.
        """
        logits, deltas = self(tokens)
        height, width = tokens.shape[2:]
        anchors = self._anchors((height, width), stride).to(tokens)
        boxes = decode_boxes(anchors, deltas[0].permute(1, 2, 0).reshape(-1, 4), _UNIT)
        found = Proposals(boxes, logits[0].permute(1, 2, 0).flatten())
        config, size = self.config, (height * stride, width * stride)
        return select_proposals(
            [found], size, before=config.before, threshold=config.threshold, after=config.after
        )

    def _anchors(self, grid: tuple[int, int], stride: int) -> Tensor:
        """(h * w * A, 4) XYXY around the corners of the cells, as mmdet's and detectron2's."""
        roots = torch.tensor(self.config.ratios).sqrt()
        scales = torch.tensor(self.config.scales, dtype=torch.float32)[:, None] * stride
        half = torch.stack([(scales / roots).flatten(), (scales * roots).flatten()], dim=1) / 2  # (A, 2)
        y, x = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
        centres = torch.stack([x, y], dim=-1).reshape(-1, 1, 2) * stride
        return torch.cat([centres - half, centres + half], dim=-1).reshape(-1, 4)


class _Conv(nn.Module):
    """3 x 3 and ReLU, named as mmcv's ``ConvModule`` names it."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))
