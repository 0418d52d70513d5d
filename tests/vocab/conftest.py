"""A tiny CLIP with random weights for tests of text banks."""

from __future__ import annotations

import pytest
import torch

from ovseg.towers.clip import CLIP, architecture

_ARCHITECTURE = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


@pytest.fixture
def clip() -> CLIP:
    torch.manual_seed(0)
    model = CLIP(architecture(_ARCHITECTURE)).eval()
    with torch.no_grad():
        for value in model.text.parameters():  # so large that words differ
            value.copy_(torch.randn_like(value) * 0.5)
    return model
