"""Fills a RegionCLIP detector before a run: weights, localiser, and the words of both phases."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ovseg.datasets.emoji import word_table
from ovseg.datasets.open_vocabulary import Split, open_vocabulary_split
from ovseg.models.detectors.converters import load_region_clip, load_vit_regions, read_localiser
from ovseg.models.detectors.region_clip import RegionCLIPDetector
from ovseg.regions.converters import RegionCLIPWeights, convert_region_clip
from ovseg.towers.checkpoints import read_state_dict
from ovseg.towers.clip_vit import VisionTransformer
from ovseg.towers.weights import LoadedClip, load_clip
from ovseg.vocab.text_bank import TextBank, encode_vocabulary
from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["RegionCLIPSetup"]


@HOOKS.register_module(name="ovseg.RegionCLIPSetup")
class RegionCLIPSetup(Hook):
    """Weights at the start of training, words at the start of every run.

    Args:
        tower: The CLIP whose text tower encodes the words, whose temperature scales the scores, and whose
            visual tower the detector starts from where no checkpoint is given ("rn50.openai").
        words: A shipped list with base and novel classes, or "emoji"; all of them are detected.
        checkpoint: A RegionCLIP file in detectron2's layout; with a ViT, of a ``RegionCLIPPretrainer``.
        localiser: A file of the localiser, where the checkpoint has none; see ``read_localiser``.
        templates: Prompt templates or their name; they are averaged as they are, as in RegionCLIP.
    """

    priority = "VERY_HIGH"

    def __init__(
        self,
        tower: str | os.PathLike[str] | LoadedClip,
        words: str = "coco_ov65",
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        localiser: str | os.PathLike[str] | None = None,
        templates: str | Sequence[str] = "regionclip81",
    ) -> None:
        self.tower, self.words, self.templates = tower, words, templates
        self.checkpoint, self.localiser = checkpoint, localiser

    def before_run(self, runner: Runner) -> None:
        """Unless the run resumes or loads a checkpoint of ours, loads weights; sets the words either way."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        clip = self.tower if isinstance(self.tower, LoadedClip) else load_clip(self.tower)
        if not (runner._resume or runner._load_from):
            self._load(model, clip)
        self._set_words(model, clip)

    def before_train(self, runner: Runner) -> None:
        """Loads the weights once more where a training begins: mmengine has just initialised the heads."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if runner.iter == 0 and not runner._load_from:
            clip = self.tower if isinstance(self.tower, LoadedClip) else load_clip(self.tower)
            self._load(model, clip)
            self._set_words(model, clip)

    def _set_words(self, model: RegionCLIPDetector, clip: LoadedClip) -> None:
        bank, base = self._banks(clip)
        head = model.roi_head.bbox_head
        head.scale = float(clip.model.logit_scale.detach().exp())
        if head.num_classes == len(base):
            head.set_rows(bank.rows[base, 0])
        model.set_vocabulary(bank)

    def _load(self, model: RegionCLIPDetector, clip: LoadedClip) -> None:
        if isinstance(clip.model.visual, VisionTransformer):
            return self._load_vit(model)
        if self.checkpoint is None:
            weights = RegionCLIPWeights(dict(clip.model.visual.state_dict()))
        else:
            weights = convert_region_clip(read_state_dict(Path(self.checkpoint)))
        localiser = None if self.localiser is None else read_state_dict(Path(self.localiser))
        load_region_clip(model, weights, localiser, for_training=True)

    def _load_vit(self, model: RegionCLIPDetector) -> None:
        """The parts have their tower from their own config."""
        if self.checkpoint is not None:
            load_vit_regions(model, read_state_dict(Path(self.checkpoint)), os.fspath(self.checkpoint))
        if self.localiser is not None and model.localiser is not None:
            read_localiser(self.localiser, model.localiser)

    @torch.no_grad()
    def _banks(self, clip: LoadedClip) -> tuple[TextBank, list[int]]:
        """All words, and which of them are base classes."""
        split = _emoji_split() if self.words == "emoji" else open_vocabulary_split(self.words)
        vocabulary = Vocabulary.of(list(split.classes) if self.words == "emoji" else self.words)
        bank = encode_vocabulary(clip.model, clip.tokenizer, vocabulary, self.templates, average="mean")
        return bank, [i for i, name in enumerate(split.classes) if name in set(split.base)]


def _emoji_split() -> Split:
    """The words that a tower of EmojiScenes knows."""
    table = word_table()
    return Split(table.names("base", "novel"), table.names("base"), table.names("novel"))
