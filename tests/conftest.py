"""Fixtures for all tests."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

# Small tensors gain nothing from more threads, and tests of several processes get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Tests neither read nor fill the user's cache."""
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def _no_default_scope():
    """OpenMMLab's default scope is global, and stays what the last run made it."""
    yield
    module = sys.modules.get("mmengine.registry.default_scope")
    if module is not None:
        module.DefaultScope._instance_dict.clear()


@pytest.fixture
def tiny_clip():
    """A small CLIP with random weights, patches of 16 pixels, trained on 64 pixels in name only."""
    import torch

    from ovseg.towers.clip import CLIP, architecture
    from ovseg.towers.table import TowerInfo
    from ovseg.towers.tokenizer import Tokenizer
    from ovseg.towers.weights import LoadedClip

    torch.manual_seed(0)
    vision = {"image_size": 64, "layers": 3, "width": 64, "head_width": 32, "patch_size": 16}
    text = {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    clip = CLIP(architecture({"embed_dim": 32, "vision_cfg": vision, "text_cfg": text})).eval()
    return LoadedClip(clip, Tokenizer(32), TowerInfo("vit_mini.random", ""))


@pytest.fixture
def photo():
    """(70, 101, 3) uint8 RGB with some structure."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (7, 11, 3), np.uint8)
    return np.ascontiguousarray(coarse.repeat(10, axis=0).repeat(10, axis=1)[:, :101])
