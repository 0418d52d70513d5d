"""The weights that the package carries: whole, and in open_clip's own layout."""

from __future__ import annotations

import json
import zlib

import pytest
import torch
from open_clip_models import unit

from ovseg.towers.checkpoints import read_state_dict
from ovseg.towers.table import ASSETS, list_towers
from ovseg.towers.weights import load_clip

_MOST = 10 * 2**20  # bytes, compressed


@pytest.mark.parametrize("name", list_towers("*.emoji*"))
@torch.no_grad()
def test_open_clip_loads_it_and_gives_the_same_embeddings(name, monkeypatch):
    monkeypatch.setenv("OVSEG_OFFLINE", "1")
    from open_clip.model import CLIP

    cfg = json.loads((ASSETS / f"{name}.json").read_text("utf-8"))["model_cfg"]
    theirs = CLIP(**cfg).eval()
    theirs.load_state_dict(read_state_dict(ASSETS / f"{name}.safetensors"), strict=True)
    ours = load_clip(name)
    assert ours.info.background_words and ours.info.licence != "unknown"
    size = ours.info.image_size
    image, tokens = torch.randn(1, 3, size, size), ours.tokenizer(["a cat", "a red bus on the road"])
    for got, wanted in (
        (ours.model.encode_image(image), theirs.encode_image(image)),
        (ours.model.encode_text(tokens), theirs.encode_text(tokens)),
    ):
        torch.testing.assert_close(unit(got), unit(wanted), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", list_towers("*.emoji*"))
def test_it_is_small_and_has_a_card(name):
    assert len(zlib.compress((ASSETS / f"{name}.safetensors").read_bytes(), 6)) < _MOST
    card = json.loads((ASSETS / f"{name}.json").read_text("utf-8"))["card"]
    assert set(card["words"]) == {"base", "novel"}
    assert {"licence", "attribution", "drawings", "recipe", "limits", "figures"} <= set(card)
    assert card["figures"]["test"]["cls_top1"] > 100 / card["figures"].get("words", 144)  # above chance
    assert "loss" in card["curves"]
