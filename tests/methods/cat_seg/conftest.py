"""Small heads and models of CAT-Seg."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def config():
    from ovseg.methods.cat_seg.config import AggregatorConfig

    return AggregatorConfig(
        embed_dim=24,
        width=32,
        window=4,
        appearance_dim=12,
        text_dim=16,
        guidance_dims=(20, 10),
        decoder_guidance_dims=(16, 8),
        decoder_dims=(32, 16),
        pad_len=8,
    )


@pytest.fixture
def make_head(config):
    """A head with random values everywhere, padding tokens and biases included."""
    from ovseg.methods.cat_seg.aggregator import Aggregator

    def make(**changes):
        torch.manual_seed(0)
        head = Aggregator(replace(config, **changes)).eval()
        for parameter in head.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
        return head

    return make


@pytest.fixture
def make_inputs(config):
    """Features, texts and guidance for a batch of images on a grid."""

    def make(classes, grid=(8, 8), batch=1, templates=1):
        torch.manual_seed(1)
        h, w = grid
        features = torch.randn(batch, config.embed_dim, h, w)
        text = torch.randn(classes, templates, config.embed_dim)
        coarse, fine = (
            torch.randn(batch, channels, scale * h, scale * w)
            for channels, scale in zip(config.guidance_dims, (2, 4))
        )
        return features, text, (torch.randn_like(features), coarse, fine)

    return make


@pytest.fixture
def make_model(tiny_clip, config):
    """The whole model around the tiny CLIP, whose grid is 8 x 8."""
    from ovseg.methods.cat_seg import CATSeg
    from ovseg.methods.cat_seg.model import CATSegModel

    def make(**fields):
        torch.manual_seed(0)
        fields = {"grid": 8, "canvas": 160, "window": 96, "stride": 64, "aggregator": config, **fields}
        return CATSegModel(tiny_clip.model, CATSeg(**fields)).eval()

    return make
