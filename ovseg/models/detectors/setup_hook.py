"""Fills a RegionCLIP detector before a run: weights, localiser, and the words of both phases."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ovseg.datasets.open_vocabulary import open_vocabulary_split
from ovseg.models.detectors.converters import load_region_clip
from ovseg.models.detectors.region_clip import RegionCLIPDetector
from ovseg.regions.converters import RegionCLIPWeights, convert_region_clip
from ovseg.towers.checkpoints import read_state_dict
from ovseg.towers.weights import LoadedClip, load_clip
from ovseg.vocab.text_bank import TextBank, encode_vocabulary
from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["RegionCLIPSetup"]


@HOOKS.register_module(name="ovseg.RegionCLIPSetup")
class RegionCLIPSetup(Hook):
    """Weights at the start of training, words at the start of every run.

    Args:
        tower: The CLIP whose text tower encodes the words, and whose ResNet the detector starts from where no
            checkpoint is given ("rn50.openai").
        words: A shipped list with base and novel classes; all of them are detected.
        checkpoint: A RegionCLIP file in detectron2's layout.
        localiser: A detectron2 file of the localiser, where the checkpoint is not merged with it.
        templates: Name of the prompt templates; they are averaged as they are, as in RegionCLIP.
    """

    priority = "VERY_HIGH"

    def __init__(
        self,
        tower: str | os.PathLike[str] | LoadedClip,
        words: str = "coco_ov65",
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        localiser: str | os.PathLike[str] | None = None,
        templates: str = "regionclip81",
    ) -> None:
        self.tower, self.words, self.templates = tower, words, templates
        self.checkpoint, self.localiser = checkpoint, localiser

    def before_run(self, runner: Runner) -> None:
        """Unless the run resumes or loads a checkpoint of ours, loads weights; sets the words either way."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        clip = self.tower if isinstance(self.tower, LoadedClip) else load_clip(self.tower)
        if not (runner._resume or runner._load_from):
            self._load(model, clip)
        bank, base = self._banks(clip)
        head = model.roi_head.bbox_head
        if head.num_classes == len(base):
            head.set_rows(bank.rows[base, 0])
        model.set_vocabulary(bank)

    def _load(self, model: RegionCLIPDetector, clip: LoadedClip) -> None:
        if self.checkpoint is None:
            weights = RegionCLIPWeights(dict(clip.model.visual.state_dict()))
        else:
            weights = convert_region_clip(read_state_dict(Path(self.checkpoint)))
        localiser = None if self.localiser is None else read_state_dict(Path(self.localiser))
        load_region_clip(model, weights, localiser, for_training=True)

    @torch.no_grad()
    def _banks(self, clip: LoadedClip) -> tuple[TextBank, list[int]]:
        """All words, and which of them are base classes."""
        vocabulary, split = Vocabulary.of(self.words), open_vocabulary_split(self.words)
        bank = encode_vocabulary(clip.model, clip.tokenizer, vocabulary, self.templates, average="mean")
        return bank, [i for i, name in enumerate(split.classes) if name in set(split.base)]
