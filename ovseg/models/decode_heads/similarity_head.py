"""Classes named in words as a decode head on any backbone of mmseg."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from ovseg.models.clip_source import ClipSource, open_clip_source
from ovseg.models.word_bank import WordBank
from ovseg.registry import MODELS
from ovseg.vocab.vocabulary import VocabularySource

__all__ = ["SimilarityHead"]


@MODELS.register_module()
class SimilarityHead(BaseDecodeHead):
    """Maps features into the space of a CLIP's words and compares: logits are scaled cosines.

    Args:
        tower: Whose text tower encodes the words (see ``ClipSource``); it is not kept.
        classes: The words, see ``Vocabulary.of``.
        in_channels: As in mmseg; may be a list with ``input_transform="resize_concat"``.
        channels: Width of the convolution between features and joint space.
        project: Whether there is a projection at all. Without one the input must be in the joint space
            already, as the last output of ``CLIPViT(dense=...)`` is: nothing but the temperature is learned.
        templates: Prompt templates of the words.
        **arguments: Of mmseg's ``BaseDecodeHead``.

    Raises:
        ValueError: ``project=False`` with features of another width than the words'.
    """

    def __init__(
        self,
        tower: ClipSource,
        classes: VocabularySource,
        in_channels: int | Sequence[int],
        channels: int = 256,
        *,
        project: bool = True,
        templates: str = "imagenet80",
        **arguments: Any,
    ) -> None:
        words = WordBank(open_clip_source(tower), classes, templates)
        arguments.setdefault("num_classes", len(words.vocabulary))
        arguments.setdefault("init_cfg", None)
        super().__init__(in_channels, channels, out_channels=len(words.vocabulary), **arguments)
        del self.conv_seg
        self.words = words
        width = words.rows.shape[1]
        self.projection: nn.Module
        if project:
            norms = {"conv_cfg": self.conv_cfg, "norm_cfg": self.norm_cfg, "act_cfg": self.act_cfg}
            mix = ConvModule(self.in_channels, channels, 3, padding=1, **norms)
            self.projection = nn.Sequential(mix, nn.Conv2d(channels, width, 1))
        elif self.in_channels != width:
            raise ValueError(
                f"features have {self.in_channels} channels, words {width}: project=True maps between them"
            )
        else:
            self.projection = nn.Identity()

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps of a backbone to logits (B, K, h, w)."""
        features = self.projection(self._transform_inputs(inputs))
        if self.dropout is not None:
            features = self.dropout(features)
        return self.words(features)
