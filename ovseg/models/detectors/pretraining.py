"""RegionCLIP's pretraining (Zhong et al., CVPR 2022, section 3.2) as a model of mmengine's runner."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor

from ovseg.models.detectors.converters import read_localiser
from ovseg.regions.region_clip import freeze_for_regions, pretraining_outputs, shared_maps
from ovseg.regions.vit import CropTeacher, ViTRegions
from ovseg.registry import MODELS
from ovseg.towers.clip_resnet import ModifiedResNet
from ovseg.towers.clip_vit import VisionTransformer
from ovseg.towers.tokenizer import Tokenizer
from ovseg.towers.weights import LoadedClip, load_clip
from ovseg.vocab.text_bank import encode_vocabulary
from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["RegionCLIPPretrainer"]


@MODELS.register_module()
class RegionCLIPPretrainer(BaseModel):
    """A student tower that learns to match regions with the names that its teacher gives them.

    The samples bring a caption (``gt_caption``, as mmdet's caption data sets do) and, without a localiser,
    ``proposals``.

    Args:
        tower: A CLIP: the teacher, the text tower, and where the student starts.
        concepts: The pool of names: a ``.txt`` file with one a line, a shipped list, or strings.
        localiser: Config of ``FrozenLocaliser``, with ``after=300``.
        localiser_weights: A file of it, of detectron2 or of a training with mmdet's RPN.
        regions: Most regions of an image that take part, chosen at random.
        temperature: Of the student; by default that of the CLIP.
        threshold: Regions that the teacher is less sure of are left out.
        templates: Name of the prompt templates of the concepts.
        data_preprocessor: Config of ``TwoViewPreprocessor``.
        first: Of a ViT, the blocks that run on whole images and stay fixed; see ``ViTRegions``.
        crop: Of a ViT, pixels of the crops that the teacher sees.
    """

    def __init__(
        self,
        tower: str | os.PathLike[str] | LoadedClip,
        concepts: str | Sequence[str],
        localiser: Any = None,
        *,
        localiser_weights: str | os.PathLike[str] | None = None,
        regions: int = 100,
        temperature: float | None = None,
        threshold: float = 0.1,
        templates: str | Sequence[str] = "regionclip81",
        data_preprocessor: Any = None,
        first: int = 3,
        crop: int = 64,
    ) -> None:
        super().__init__(data_preprocessor)
        clip = tower if isinstance(tower, LoadedClip) else load_clip(tower)
        visual = clip.model.visual.requires_grad_(False)
        self.student, self.teacher = _pair(visual, first, crop)  # type: ignore[arg-type]
        self.text = clip.model.text.requires_grad_(False)
        self.tokenizer = clip.tokenizer
        with torch.no_grad():
            words = Vocabulary.of(concepts)
            bank = encode_vocabulary(clip.model, clip.tokenizer, words, templates, average="mean")
        self.register_buffer("concepts", bank.matrix)
        self.localiser = None if localiser is None else _localiser(localiser, localiser_weights)
        self.regions, self.threshold = regions, threshold
        self.scale = float(clip.model.logit_scale.detach().exp())
        self.temperature = temperature or 1 / self.scale

    def train(self, mode: bool = True) -> RegionCLIPPretrainer:
        """Batch norms keep CLIP's statistics; nothing here behaves differently in training."""
        return super().train(False)

    def forward(self, inputs: dict[str, Tensor], data_samples: list[Any], mode: str = "tensor") -> Any:
        """The three losses with ``mode="loss"``; the regions' embeddings (N, D) with ``mode="tensor"``.

        Raises:
            ValueError: Another mode, or samples without caption or proposals.
        """
        if mode not in ("loss", "tensor"):
            raise ValueError(f"mode {mode!r}: there are 'loss' and 'tensor'; evaluate the student as a tower")
        if not all("gt_caption" in sample for sample in data_samples):
            raise ValueError("pretraining needs captions; the samples have no gt_caption")
        maps = shared_maps(self.student, inputs["image"])
        step = pretraining_outputs(
            self.student,
            self.teacher,
            inputs["image"],
            self._boxes(inputs, data_samples, maps),
            self.concepts,
            self._captions([sample.gt_caption for sample in data_samples]),
            temperature=self.temperature,
            teacher_scale=self.scale,
            threshold=self.threshold,
            maps=maps,
        )
        return step.losses if mode == "loss" else step.regions

    @torch.no_grad()
    def _captions(self, captions: list[Any]) -> Tensor:
        """(B, D); of several captions of an image one is drawn."""
        texts = [c if isinstance(c, str) else c[int(torch.randint(len(c), ()))] for c in captions]
        tokens = self.tokenizer([_fitting(text, self.tokenizer) for text in texts])
        return self.text(tokens.to(self.concepts.device))

    def _boxes(self, inputs: dict[str, Tensor], samples: list[Any], maps: Tensor) -> list[Tensor]:
        if self.localiser is None:
            found = [sample.get("proposals") for sample in samples]
            if any(proposals is None for proposals in found):
                raise ValueError("the samples have no proposals and the model no localiser; give it one")
        else:
            seen = (maps,) if self.localiser.backbone is None else inputs["localiser"]
            found = self.localiser.predict(seen, [s.img_shape[:2] for s in samples])
        boxes = [proposals.bboxes for proposals in found]
        return [box[torch.randperm(len(box), device=box.device)[: self.regions]] for box in boxes]


def _fitting(text: str, tokenizer: Tokenizer) -> str:
    """As many words of a caption as the text tower takes."""
    words = text.split()
    while words:
        try:
            tokenizer.encode(" ".join(words))
            break
        except ValueError:  # too long
            words = words[: -max(1, len(words) // 8)]
    return " ".join(words)


def _pair(
    visual: ModifiedResNet | VisionTransformer, first: int, crop: int
) -> tuple[ModifiedResNet | ViTRegions, ModifiedResNet | CropTeacher]:
    """Student and teacher."""
    if isinstance(visual, ModifiedResNet):
        copied = copy.deepcopy(visual).requires_grad_(True)
        freeze_for_regions(copied)
        return copied, visual
    student = ViTRegions(copy.deepcopy(visual), first)
    student.freeze()
    return student, CropTeacher(visual, crop)


def _localiser(config: Any, weights: str | os.PathLike[str] | None) -> Any:
    localiser = MODELS.build(config)
    if weights is not None:
        read_localiser(weights, localiser)
    return localiser
