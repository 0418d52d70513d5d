"""RegionCLIP as an mmdet detector: fine-tuning on base classes, prediction on any."""

from __future__ import annotations

from typing import Any

from mmdet.models.detectors import TwoStageDetector
from mmengine.structures import InstanceData
from torch import Tensor

from ovseg.registry import MODELS
from ovseg.vocab.text_bank import TextBank

__all__ = ["RegionCLIPDetector"]


@MODELS.register_module()
class RegionCLIPDetector(TwoStageDetector):
    """A CLIP that classifies the boxes of a frozen localiser, or boxes that come with the data.

    Args:
        backbone: Config of ``CLIPResNetC4`` or ``CLIPViTC4``.
        roi_head: Config of ``RegionRoIHead``.
        localiser: Config of ``FrozenLocaliser``, which without a backbone reads this one's maps; None where
            the data brings ``proposals``.
        train_cfg: With ``rcnn``, as in mmdet.
        test_cfg: With ``rcnn``, see ``RegionRoIHead``.
        data_preprocessor: Config of ``TwoViewPreprocessor``.
    """

    def __init__(
        self,
        backbone: Any,
        roi_head: Any,
        localiser: Any = None,
        train_cfg: Any = None,
        test_cfg: Any = None,
        data_preprocessor: Any = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(
            backbone=backbone,
            roi_head=roi_head,
            train_cfg=train_cfg,
            test_cfg=test_cfg,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        self.localiser = None if localiser is None else MODELS.build(localiser)

    def set_vocabulary(self, bank: TextBank | None) -> None:
        """Sets the classes of prediction, any number; None for those of training. No weight changes."""
        self.roi_head.bbox_head.set_vocabulary(bank)

    def loss(self, batch_inputs: dict[str, Tensor], batch_data_samples: list[Any]) -> dict[str, Tensor]:
        """Losses of the RoI head; the localiser has none."""
        features = self.backbone(batch_inputs["image"])
        proposals = self._proposals(batch_inputs, batch_data_samples, features)
        return self.roi_head.loss(features, proposals, batch_data_samples)

    def predict(
        self, batch_inputs: dict[str, Tensor], batch_data_samples: list[Any], rescale: bool = True
    ) -> list[Any]:
        """Adds ``pred_instances`` to the samples, in pixels of the original images with ``rescale``."""
        features = self.backbone(batch_inputs["image"])
        proposals = self._proposals(batch_inputs, batch_data_samples, features)
        found = self.roi_head.predict(features, proposals, batch_data_samples, rescale=rescale)
        return self.add_pred_to_datasample(batch_data_samples, found)

    def _forward(self, batch_inputs: dict[str, Tensor], batch_data_samples: list[Any]) -> tuple:
        features = self.backbone(batch_inputs["image"])
        proposals = self._proposals(batch_inputs, batch_data_samples, features)
        return (self.roi_head.forward(features, proposals, batch_data_samples),)

    def _proposals(
        self, inputs: dict[str, Tensor], samples: list[Any], features: tuple[Tensor, ...]
    ) -> list[InstanceData]:
        if all("proposals" in sample for sample in samples):
            return [sample.proposals for sample in samples]
        if self.localiser is None:
            raise ValueError(
                "the data has no proposals and the detector no localiser: give it one, or add LoadProposals "
                "or TruthAsProposals to the pipeline"
            )
        seen = features if self.localiser.backbone is None else inputs["localiser"]
        return self.localiser.predict(seen, [sample.img_shape[:2] for sample in samples])
