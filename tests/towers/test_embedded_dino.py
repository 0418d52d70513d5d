"""The embedded self-supervised tower: whole, small, and better than colours at telling objects apart."""

from __future__ import annotations

import json

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

import ovseg
from ovseg.evaluation.affinity import affinity_auc, colour_features
from ovseg.methods.registry import zoo_row
from ovseg.towers.auxiliary import EMBEDDED_DINO, auxiliary_info, auxiliary_tower
from ovseg.towers.table import ASSETS

SCENE = json.loads((ASSETS / "demo" / "scenes.json").read_text("utf-8"))[0]
WORDS = SCENE["classes"]  # the last is the texture
FILE = ASSETS / f"{EMBEDDED_DINO}.safetensors"


@pytest.fixture(scope="module")
def scene():
    """Picture (H, W, 3) and true classes (H, W)."""
    picture, mask = (Image.open(ASSETS / "demo" / SCENE[key]) for key in ("file", "mask"))
    return np.asarray(picture.convert("RGB")), np.asarray(mask)


def test_timm_loads_it_and_it_is_small():
    info = auxiliary_info(EMBEDDED_DINO)
    vit = timm.create_model(info.arch, num_classes=0, **info.options)
    vit.load_state_dict(load_file(FILE), strict=True)
    assert vit.patch_embed.grid_size == (28, 28) and FILE.stat().st_size < 8 * 2**20
    card = json.loads(FILE.with_suffix(".card.json").read_text("utf-8"))
    assert {"licence", "attribution", "drawings", "recipe", "limits", "figures"} <= set(card)


def test_it_tells_objects_apart_better_than_colours_do(scene):
    picture, mask = scene
    image = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] / 255
    image = F.interpolate(image, (224, 224), mode="area")  # the size of the scenes that it knows
    classes = (torch.from_numpy(mask.copy()).long() + 1) % len(WORDS)  # the texture is 0
    shares = F.adaptive_avg_pool2d(F.one_hot(classes).permute(2, 0, 1)[None].float(), 28)[0]
    share, owner = shares.max(dim=0)
    owner[share < 0.8] = -1
    found = affinity_auc(auxiliary_tower(EMBEDDED_DINO)(image).patches[0], owner)
    assert found > affinity_auc(colour_features(image)[0], owner) + 0.03


@pytest.mark.parametrize("method", ["proxyclip", "trident", "lposs"])
def test_rows_on_it_find_what_is_there(method, scene):
    row = zoo_row(f"{method}_vit_tiny.emoji")
    assert row.protocol.fields["auxiliary"] == EMBEDDED_DINO
    picture, mask = scene
    result = ovseg.load(row.name).segment(picture, WORDS, background="none")
    assert result.label_map.shape == mask.shape
    ious = [
        float(((result.label_map == k) & (mask == k)).sum() / ((result.label_map == k) | (mask == k)).sum())
        for k in range(len(WORDS))
    ]
    assert np.mean(ious) > 0.5
