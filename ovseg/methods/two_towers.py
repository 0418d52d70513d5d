"""What models with a second vision tower share: its images, and the tower itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ovseg.dense.readout import Readout
from ovseg.methods.method import Method
from ovseg.methods.segmenter import Segmenter
from ovseg.towers.auxiliary import AuxiliaryTower, auxiliary_tower, require_auxiliary

if TYPE_CHECKING:
    from ovseg.towers.clip import CLIP

__all__ = ["TwoTowerSegmenter"]


class TwoTowerSegmenter(Segmenter):
    """A segmenter that also looks at the image through an auxiliary tower.

    The tower is no submodule: it is frozen, shared by all who use it, and built at the first image.

    Args:
        clip: See ``Segmenter``.
        method: See ``Segmenter``.
        readout: See ``Segmenter``.
        auxiliary: Name of a tower (its weights are fetched now, if need be), or a tower.

    Raises:
        ValueError: The name is unknown.
        WeightsUnavailableError: The weights are not here and cannot be fetched.
    """

    def __init__(
        self, clip: CLIP, method: Method, readout: Readout | None, auxiliary: str | AuxiliaryTower
    ) -> None:
        super().__init__(clip, method, readout)
        if isinstance(auxiliary, str):
            require_auxiliary(auxiliary)
        self._auxiliary = (auxiliary,)  # in a tuple, lest it becomes a submodule

    def auxiliary(self, image: Tensor) -> AuxiliaryTower:
        """The auxiliary tower, where an image is and in its precision."""
        (tower,) = self._auxiliary
        return auxiliary_tower(tower, image.device, image.dtype) if isinstance(tower, str) else tower

    def pixels(self, image: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) back in [0, 1]. Zero padding becomes CLIP's mean colour."""
        mean, std = (
            torch.tensor(values, device=image.device, dtype=image.dtype)[:, None, None]
            for values in (self.clip.mean, self.clip.std)
        )
        return image * std + mean
