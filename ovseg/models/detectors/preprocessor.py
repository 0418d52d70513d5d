"""One image, two normalisations: CLIP's for the recogniser, another for the localiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.models.data_preprocessors import DetDataPreprocessor

from ovseg.registry import MODELS
from ovseg.towers.table import OPENAI_MEAN, OPENAI_STD

__all__ = ["TwoViewPreprocessor"]

_CAFFE = {"mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0]}
_CLIP_MEAN = tuple(255 * value for value in OPENAI_MEAN)
_CLIP_STD = tuple(255 * value for value in OPENAI_STD)


@MODELS.register_module()
class TwoViewPreprocessor(DetDataPreprocessor):
    """mmdet's preprocessor for CLIP (RGB), and a second one for a localiser of its own input convention.

    Args:
        localiser: Arguments of the localiser's ``DetDataPreprocessor``; by default BGR, ImageNet's means in
            pixels, no scaling (RegionCLIP). None: there is no localiser.
        mean: RGB, 0 to 255; CLIP's by default.
        std: Likewise.
        **kwargs: Of mmdet's ``DetDataPreprocessor``, without batch augmentations.

    Raises:
        ValueError: Batch augmentations are asked for: the two views would not show the same.
    """

    def __init__(
        self,
        localiser: Mapping[str, Any] | None = _CAFFE,
        mean: Sequence[float] = _CLIP_MEAN,
        std: Sequence[float] = _CLIP_STD,
        bgr_to_rgb: bool = True,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("batch_augments") or (localiser or {}).get("batch_augments"):
            raise ValueError("batch augmentations would make the two views differ; augment in the pipeline")
        super().__init__(mean=mean, std=std, bgr_to_rgb=bgr_to_rgb, **kwargs)
        self.localiser = None if localiser is None else DetDataPreprocessor(**localiser)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """mmdet's batch, in which ``inputs`` is a dict: ``image`` and, with a localiser, ``localiser``."""
        views = {}
        if self.localiser is not None:
            bare = {"inputs": data["inputs"], "data_samples": None}
            views["localiser"] = self.localiser(bare, training)["inputs"]
        batch = super().forward(data, training)
        return {"inputs": {"image": batch["inputs"], **views}, "data_samples": batch["data_samples"]}
