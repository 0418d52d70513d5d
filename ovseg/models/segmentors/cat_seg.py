"""CAT-Seg on mmseg's ``BaseSegmentor``, and the learning rates of its parameters."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.models import BaseSegmentor, SegDataPreProcessor
from mmseg.utils import OptSampleList, SampleList
from torch import Tensor, nn

from ovseg.api import build
from ovseg.dense.features import DenseFeatures
from ovseg.inference.predictor import Predictor
from ovseg.methods.cat_seg import CATSeg
from ovseg.methods.cat_seg.converter import joined
from ovseg.methods.cat_seg.loss import IGNORE
from ovseg.methods.cat_seg.model import CATSegModel
from ovseg.methods.cat_seg.tuning import FineTune, parameter_groups, set_trainable
from ovseg.models.clip_source import ClipSource, open_clip_source
from ovseg.registry import MODELS
from ovseg.towers.clip import CLIP
from ovseg.training.groups import PatternGroups
from ovseg.vocab.text_bank import encode_vocabulary
from ovseg.vocab.vocabulary import Vocabulary, VocabularySource

__all__ = ["CATSegGroups", "CATSegSegmentor"]


@MODELS.register_module()
class CATSegSegmentor(BaseSegmentor):
    """CAT-Seg in training: the words go through the text tower at every step.

    ``ovseg convert CHECKPOINT OUT --config CONFIG`` makes a release file of what this leaves behind.

    Args:
        tower: A CLIP with a ViT, see ``ClipSource``.
        classes: The words, see ``Vocabulary.of``; of each class the first one is used, as published.
        fine_tune: What of CLIP is trained, see ``set_trainable``.
        protocol: Of ``CATSeg``: its prompt templates and settings.
        fields: Settings of ``CATSeg`` that differ from it.
        classes_per_step: Train on the classes that a batch shows, and on others by chance up to so many; the
            work grows with their number. Of several numbers each step takes one by chance. None: on all, as
            published.
        data_preprocessor: As in mmseg; by default the normalisation of the weights, for BGR images.
        init_cfg: As in mmengine.

    Attributes:
        segmenter: The plain module.
        vocabulary: K classes.
    """

    def __init__(
        self,
        tower: ClipSource,
        classes: VocabularySource,
        *,
        fine_tune: FineTune = "attention",
        protocol: str = "default",
        fields: Mapping[str, Any] | None = None,
        classes_per_step: int | Sequence[int] | None = None,
        data_preprocessor: Any = None,
        init_cfg: Any = None,
    ) -> None:
        clip = open_clip_source(tower)
        if data_preprocessor is None:
            mean, std = ([255 * value for value in values] for values in (clip.info.mean, clip.info.std))
            data_preprocessor = SegDataPreProcessor(
                mean, std, pad_val=0, seg_pad_val=IGNORE, bgr_to_rgb=True, size_divisor=1
            )
        super().__init__(data_preprocessor, init_cfg)
        self.protocol = CATSeg.protocols[protocol]
        settings = {**self.protocol.fields, **(fields or {})}
        self.segmenter = CATSegModel(clip.model, CATSeg(**settings))
        set_trainable(self.segmenter, fine_tune)
        self.vocabulary = Vocabulary.of(classes)
        self.classes_per_step = (classes_per_step,) if isinstance(classes_per_step, int) else classes_per_step
        self._clip, self._settings = clip, settings
        self._rows: Tensor | None = None
        self.align_corners = False

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.vocabulary)

    def predictor(self) -> Predictor:
        """What was trained, with its words; ``save`` writes a release."""
        clip = replace(self._clip, model=CLIP(self._clip.model.config))
        with warnings.catch_warnings():  # that the head is untrained: its weights come next
            warnings.simplefilter("ignore", UserWarning)
            built = build("cat_seg", clip, protocol=self.protocol, device="cpu", **self._settings)
        built.model.load_state_dict(joined(self.segmenter.state_dict()))
        built.set_vocabulary(self.vocabulary)
        return built

    def rows(self) -> Tensor:
        """Text embeddings (K, T, C): with gradients in training, else encoded once."""
        if self.training:
            return self._encode(range(self.num_classes))
        if self._rows is None:
            with torch.no_grad():
                self._rows = self._encode(range(self.num_classes))
        return self._rows

    def _encode(self, classes: Iterable[int]) -> Tensor:
        chosen = (self.vocabulary.classes[k] for k in classes)
        firsts = tuple(replace(item, words=item.words[:1]) for item in chosen)
        words = Vocabulary(firsts, self.vocabulary.name)
        clip, how = self.segmenter.clip, self.protocol
        return encode_vocabulary(clip, self._clip.tokenizer, words, how.templates, average=how.average).rows

    def extract_feat(self, inputs: Tensor) -> DenseFeatures:  # type: ignore[override]
        """Dense features of normalised images (B, 3, H, W), at the resolution of the tower."""
        return self.segmenter.features(self.segmenter.fit(inputs))

    def encode_decode(self, inputs: Tensor, batch_data_samples: Any = None) -> Tensor:
        """Probabilities (B, K, H, W) of normalised images (B, 3, H, W), each seen as a whole."""
        scores = self.segmenter.head(self.extract_feat(inputs), self.rows()).sigmoid()
        return F.interpolate(scores, inputs.shape[2:], mode="bilinear", align_corners=False)

    def loss(self, inputs: Tensor, data_samples: SampleList) -> dict[str, Tensor]:
        """Binary cross entropy of every class at every pixel."""
        truth = torch.cat([sample.gt_sem_seg.data for sample in data_samples]).long()
        if self.classes_per_step is None:
            return {"loss_bce": self.segmenter.loss(inputs, truth, self.rows())}
        seen = truth.unique()
        seen = seen[seen != IGNORE]
        order = torch.randperm(self.num_classes, device=seen.device)
        count = self.classes_per_step[int(torch.randint(len(self.classes_per_step), ()))]
        others = order[~torch.isin(order, seen)][: max(count - len(seen), 0)]
        chosen = torch.cat([seen, others])
        renumbered = truth.new_full((IGNORE + 1,), IGNORE)
        renumbered[chosen] = torch.arange(len(chosen), device=chosen.device)
        return {"loss_bce": self.segmenter.loss(inputs, renumbered[truth], self._encode(chosen.tolist()))}

    def predict(self, inputs: Tensor, data_samples: OptSampleList = None) -> SampleList:
        """Labels at the images' original sizes."""
        return self.postprocess_result(self.encode_decode(inputs), data_samples)

    def _forward(self, inputs: Tensor, data_samples: OptSampleList = None) -> Tensor:  # type: ignore[override]
        return self.encode_decode(inputs)

    def train(self, mode: bool = True) -> CATSegSegmentor:
        """As in torch; embeddings of words that were kept for inference are dropped."""
        super().train(mode)
        self._rows = None
        return self


class CATSegGroups(PatternGroups):
    """Optimiser constructor with the authors' groups: CLIP at a share of the rate, norms without decay.

    Args:
        optim_wrapper_cfg: As in mmengine.
        paramwise_cfg: ``clip_factor``, the share (0.01 as published).
    """

    def __init__(
        self, optim_wrapper_cfg: Mapping[str, Any], paramwise_cfg: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(optim_wrapper_cfg)
        self.clip_factor = (paramwise_cfg or {}).get("clip_factor", 0.01)

    def groups(self, model: nn.Module, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """One group for each trained parameter of a ``CATSegSegmentor``."""
        return parameter_groups(model.segmenter, lr, weight_decay, self.clip_factor)  # type: ignore[arg-type]
