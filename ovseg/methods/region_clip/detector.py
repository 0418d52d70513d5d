"""A fine-tuned RegionCLIP as one module: tuned tower, localiser, box regressor, words of training."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ovseg.dense.readout import Readout
from ovseg.methods.method import Method
from ovseg.methods.segmenter import Segmenter
from ovseg.regions.boxes import clip_boxes, decode_boxes
from ovseg.regions.classify import class_rows, region_logits, region_scores
from ovseg.regions.embed import embed_by_pool, embed_crops, region_maps
from ovseg.regions.fuse import class_exponents, fuse
from ovseg.regions.proposals import Proposals
from ovseg.regions.region_clip import BOX_WEIGHTS
from ovseg.regions.rpn import ProposalNetwork, RPNConfig
from ovseg.regions.vit import RegionRegressor, ViTRegions, shared_tokens
from ovseg.towers.clip import CLIP
from ovseg.towers.clip_resnet import ModifiedResNet
from ovseg.vocab.text_bank import TextBank

__all__ = ["DetectorConfig", "RegionDetector", "Regions"]

_SAME = 0.99  # cosine from which a word is one of training: templates may differ a little


@dataclass(frozen=True)
class DetectorConfig:
    """Parts and rules of a fine-tuned RegionCLIP.

    Attributes:
        classes: K, the number of words of training.
        first: Of a ViT, the blocks that run on whole images; see ``ViTRegions``.
        rpn: The localiser on their tokens; None where boxes come from elsewhere.
        crop: Of a ViT, pixels of the crops that the untuned tower sees beside; 0: it sees none.
        base: Exponents of the probability by the tuned tower, that by crops, and objectness in the score of
            words of training.
        novel: The same of all other words.
    """

    classes: int
    first: int = 0
    rpn: RPNConfig | None = None
    crop: int = 0
    base: tuple[float, float, float] = (0.5, 0.0, 0.5)
    novel: tuple[float, float, float] = (0.5, 0.0, 0.5)


@dataclass(frozen=True)
class Regions:
    """N regions of one image.

    Attributes:
        boxes: (N, 4) XYXY in pixels of the network's input, moved by the regressor.
        scores: (N, K) of the classes, without background, objectness included.
    """

    boxes: Tensor
    scores: Tensor


class RegionDetector(Segmenter):
    """Finds boxes and names them. As a segmenter it reads its CLIP: a tuned ResNet, a ViT as it was.

    Args:
        clip: Both towers.
        method: See ``Segmenter``.
        readout: See ``Segmenter``.
        config: Parts and rules.

    Attributes:
        rows: (K, C) unit embeddings of the words of training: the others are novel.
        tuned: The tuned blocks of a ViT.
    """

    def __init__(self, clip: CLIP, method: Method, readout: Readout, config: DetectorConfig) -> None:
        super().__init__(clip, method, readout)
        self.config = config
        dim = clip.visual.config.output_dim
        self.rows: Tensor
        self.register_buffer("rows", torch.zeros(config.classes, dim))
        if isinstance(clip.visual, ModifiedResNet):
            self.regressor = nn.Linear(dim, 4)
        else:
            self.regressor = RegionRegressor(clip.visual.config.blocks.width)
            self.tuned = ViTRegions(copy.deepcopy(clip.visual), config.first)
            for i in range(config.first):
                self.tuned.visual.transformer.resblocks[i] = nn.Identity()
        self.localiser = None if config.rpn is None else ProposalNetwork(config.rpn)

    def propose(self, batch: Tensor) -> Proposals:
        """Boxes in one normalised image (1, 3, H, W), in its pixels.

        Raises:
            ValueError: The model has no localiser.
        """
        if self.localiser is None:
            raise ValueError("this detector has no localiser of its own; give proposals")
        visual: Any = self.clip.visual
        return self.localiser.propose(shared_tokens(visual, batch, self.config.first)[0], visual.stride)

    def embed(self, batch: Tensor, boxes: Tensor) -> Tensor:
        """Embeddings (N, C) of boxes (N, 4) in one normalised image (1, 3, H, W)."""
        return self._read(batch, boxes)[0]

    def _read(self, batch: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (N, C) of boxes, and moves (N, 4)."""
        visual: Any = self.clip.visual
        if isinstance(visual, ModifiedResNet):
            embedded = embed_by_pool(visual, visual.stage3(batch), [boxes])
            return embedded, self.regressor(embedded)
        maps, _ = shared_tokens(visual, batch, self.config.first)
        regions = region_maps(maps, [boxes], self.tuned.size, visual.stride)
        return self.tuned.pool(regions), self.regressor(regions)

    def regions(self, batch: Tensor, proposals: Proposals, bank: TextBank, scale: float) -> Regions:
        """Names proposals, and moves them.

        Args:
            batch: (1, 3, H, W), normalised.
            proposals: In its pixels.
            bank: All words that compete.
            scale: Of the cosine.
        """
        if not len(proposals):
            return Regions(batch.new_zeros(0, 4), batch.new_zeros(0, len(bank.vocabulary)))
        boxes = proposals.boxes.to(batch)
        embedded, moves = self._read(batch, boxes)
        moved = decode_boxes(boxes, moves, BOX_WEIGHTS)
        moved = clip_boxes(moved, (batch.shape[2], batch.shape[3]))
        sources = {0: _probabilities(embedded, bank, scale)}
        if self.config.crop:
            crops = embed_crops(self.clip.encode_image, batch[0], boxes, self.config.crop, at_once=64)
            sources[1] = _probabilities(crops, bank, scale)
        if proposals.logits is not None:
            sources[2] = proposals.logits.to(sources[0]).sigmoid()[:, None]
        novel, (base, other) = ~self._trained(bank), (self.config.base, self.config.novel)
        exponents = [class_exponents(novel, base[i], other[i]).to(batch.device) for i in sources]
        return Regions(moved, fuse(list(sources.values()), exponents))

    def _trained(self, bank: TextBank) -> Tensor:
        """(K,) whether a class has a word of training."""
        same = (bank.unit[:, 0].float() @ self.rows.float().T).amax(dim=1) > _SAME  # (Q,)
        known = torch.zeros(len(bank.vocabulary), dtype=torch.bool, device=same.device)
        known[bank.word_to_class[same]] = True
        return known


def _probabilities(embedded: Tensor, bank: TextBank, scale: float) -> Tensor:
    """(N, K) of the classes, among them and a background whose logit is 0."""
    logits = region_logits(embedded.float(), class_rows(bank), scale)
    return region_scores(logits, bank.word_to_class, len(bank.vocabulary))[:, :-1]
