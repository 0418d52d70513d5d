"""Guided upsampling of the cost embedding (section 3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.methods.cat_seg.chunks import over_chunks

__all__ = ["Decoder"]


class Decoder(nn.Module):
    """From the cost embedding of each class to its logits on four times the grid.

    Args:
        width: Channels C of the cost embedding.
        dims: Channels after each of the two stages.
        guidance_dims: Channels of the image features on twice and four times the grid.
        projected_dims: The same, projected.
    """

    def __init__(
        self,
        width: int,
        dims: tuple[int, int],
        guidance_dims: tuple[int, int],
        projected_dims: tuple[int, int],
    ) -> None:
        super().__init__()
        self.guidance = nn.ModuleList(
            nn.Sequential(nn.Conv2d(wide, narrow, 3, padding=1), nn.ReLU())
            for wide, narrow in zip(guidance_dims, projected_dims)
        )
        self.stages = nn.ModuleList(
            UpStage(before, after, narrow)
            for before, after, narrow in zip((width, dims[0]), dims, projected_dims)
        )
        self.head = nn.Conv2d(dims[1], 1, 3, padding=1)

    def forward(self, x: Tensor, guidance: tuple[Tensor, Tensor]) -> Tensor:
        """Logits (K, 4 h, 4 w) of the classes of one image.

        Args:
            x: (K, h, w, C) cost embeddings.
            guidance: Image features (G1, 2 h, 2 w) and (G2, 4 h, 4 w).
        """
        steps = [
            (stage, *stage.prepare(project(image[None])))  # type: ignore[operator]
            for stage, project, image in zip(self.stages, self.guidance, guidance)
        ]

        def decode(part: Tensor) -> Tensor:
            y = part.permute(0, 3, 1, 2)  # channels last in memory
            for stage, kernel, image in steps:
                y = stage(y, kernel, image)
            return self.head(y)[:, 0]

        return over_chunks(decode, x)


class UpStage(nn.Module):
    """Upsampling by two, concatenation of the image guidance, and two convolutions.

    A transposed convolution (2 x 2, stride 2) followed by a convolution (3 x 3) is one transposed convolution
    (4 x 4, stride 2), at half the multiply-adds and without the wide map in between. What the convolution
    makes of the guidance and of the first one's bias is the same for all classes.
    """

    def __init__(self, before: int, after: int, guidance: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(before, before - guidance, 2, stride=2)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(after // 16, after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(after // 16, after)

    def prepare(self, guidance: Tensor) -> tuple[Tensor, Tensor]:
        """What does not depend on the class.

        Args:
            guidance: (1, G, 2 h, 2 w), projected.

        Returns:
            The joint kernel (before, after, 4, 4), and what the image adds, (1, after, 2 h, 2 w).
        """
        assert self.up.bias is not None  # for the type checker
        bias = self.up.bias.view(1, -1, 1, 1).expand(-1, -1, *guidance.shape[2:])
        image = self.conv1(torch.cat([bias, guidance], dim=1))
        kernel = F.conv2d(self.up.weight, self.conv1.weight[:, : self.up.out_channels], padding=2)
        return kernel, image

    def forward(self, x: Tensor, kernel: Tensor, image: Tensor) -> Tensor:
        """(n, before, h, w) to (n, after, 2 h, 2 w)."""
        in_place = not torch.is_grad_enabled()
        x = F.conv_transpose2d(x, kernel, stride=2, padding=1)
        x = x.add_(image) if in_place else x + image
        x = self.conv2(F.relu(self.norm1(x), inplace=in_place))
        return F.relu(self.norm2(x), inplace=in_place)
