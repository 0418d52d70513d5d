"""Any method of the zoo as a segmentor on mmseg's ``BaseSegmentor``: trained and tested by its Runner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.models import BaseSegmentor, SegDataPreProcessor
from mmseg.utils import OptSampleList, SampleList
from torch import Tensor, nn

from ovseg.api import build
from ovseg.dense.features import DenseFeatures
from ovseg.inference.predictor import Predictor
from ovseg.models.clip_source import ClipSource, open_clip_source
from ovseg.models.word_bank import WordBank
from ovseg.registry import MODELS
from ovseg.vocab.text_bank import TextBank
from ovseg.vocab.vocabulary import VocabularySource

__all__ = ["OpenVocabularySegmentor"]


@MODELS.register_module()
class OpenVocabularySegmentor(BaseSegmentor):
    """Scores of words at every patch, upsampled; trained with cross entropy.

    Images come in one piece, at the size that the pipeline gives them. For windows, background rules and
    published settings use ``ovseg eval``.

    Args:
        method: Name of a method without a trained head.
        tower: See ``ClipSource``.
        classes: The words, see ``Vocabulary.of``.
        templates: Prompt templates of the words.
        fields: Settings of the method and its readout, as ``ovseg.build`` takes them.
        ignore_index: Label of pixels without a loss.
        data_preprocessor: As in mmseg; by default the normalisation of the weights, for BGR images.
        init_cfg: As in mmengine.

    Attributes:
        segmenter: The plain module.
        words: The words and the temperature.
    """

    def __init__(
        self,
        method: str,
        tower: ClipSource,
        classes: VocabularySource,
        *,
        templates: str = "imagenet80",
        fields: Mapping[str, Any] | None = None,
        ignore_index: int = 255,
        data_preprocessor: Any = None,
        init_cfg: Any = None,
    ) -> None:
        clip = open_clip_source(tower)
        if data_preprocessor is None:
            mean, std = ([255 * value for value in values] for values in (clip.info.mean, clip.info.std))
            data_preprocessor = SegDataPreProcessor(
                mean, std, pad_val=0, seg_pad_val=ignore_index, bgr_to_rgb=True, size_divisor=1
            )
        super().__init__(data_preprocessor, init_cfg)
        self._built = build(method, clip, device="cpu", **(fields or {}))
        self.segmenter: Any = self._built.model
        self.words = WordBank(clip, classes, templates)
        self._templates = templates
        self.align_corners, self.ignore_index = False, ignore_index
        text = getattr(getattr(self.segmenter, "clip", None), "text", None)
        if isinstance(text, nn.Module):
            text.requires_grad_(False)  # the words are encoded once

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.words.vocabulary)

    def predictor(self) -> Predictor:
        """What was trained, with its words and the temperature that it learned; ``save`` writes a release."""
        with torch.no_grad():
            self.segmenter.clip.logit_scale.copy_(self.words.scale.log())
        self._built.model.eval()
        self._built.set_vocabulary(self.words.vocabulary, self._templates)
        return self._built

    def extract_feat(self, inputs: Tensor) -> DenseFeatures:  # type: ignore[override]
        """Dense features of normalised images (B, 3, H, W)."""
        return self.segmenter.features(inputs)

    def encode_decode(self, inputs: Tensor, batch_data_samples: Any = None) -> Tensor:
        """Logits (B, K, H, W) of normalised images (B, 3, H, W)."""
        rows, owners = self.words.rows, self.words.word_to_class
        scores = self.segmenter(inputs, TextBank(rows[:, None], True, owners, self.words.vocabulary))
        logits = self.words.classes(scores)
        return F.interpolate(logits, inputs.shape[2:], mode="bilinear", align_corners=False)

    def loss(self, inputs: Tensor, data_samples: SampleList) -> dict[str, Tensor]:
        """Cross entropy over the labelled pixels, and the share of them that is right, in percent."""
        logits = self.encode_decode(inputs)
        truth = torch.cat([sample.gt_sem_seg.data for sample in data_samples]).long()
        known = truth != self.ignore_index
        total = F.cross_entropy(logits, truth, ignore_index=self.ignore_index, reduction="sum")
        right = ((logits.argmax(dim=1) == truth) & known).sum()
        count = known.sum().clamp(min=1)  # a batch may have no label at all
        return {"loss_ce": total / count, "acc_seg": 100 * right / count}

    def predict(self, inputs: Tensor, data_samples: OptSampleList = None) -> SampleList:
        """Labels at the images' original sizes."""
        return self.postprocess_result(self.encode_decode(inputs), data_samples)

    def _forward(self, inputs: Tensor, data_samples: OptSampleList = None) -> Tensor:  # type: ignore[override]
        return self.encode_decode(inputs)

    def train(self, mode: bool = True) -> OpenVocabularySegmentor:
        """As in torch, but batch norms keep their statistics."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self
