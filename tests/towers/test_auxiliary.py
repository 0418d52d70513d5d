from __future__ import annotations

import pytest
import torch
from torch import nn

from ovseg.dense.features import DenseFeatures
from ovseg.towers import auxiliary
from ovseg.towers.auxiliary import (
    AuxiliaryTower,
    auxiliary_info,
    auxiliary_tower,
    list_auxiliary_towers,
    register_auxiliary,
    require_auxiliary,
)
from ovseg.towers.download import WeightsUnavailableError


class Toy(nn.Module):
    """A patch embedding with its own normalisation."""

    stride = 8

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 8, 8)

    def forward(self, image01, taps=()):
        maps = self.conv(image01 * 2 - 1)
        tokens = maps.flatten(2).transpose(1, 2)
        return DenseFeatures(maps, None, self.stride, "width", {tap: tokens for tap in taps})


@pytest.fixture
def built(monkeypatch):
    monkeypatch.setattr(auxiliary, "_builders", {})
    monkeypatch.setattr(auxiliary, "_built", {})
    monkeypatch.setattr(auxiliary, "_table", {})
    count = []

    @register_auxiliary("toy_vit_s8")
    def build() -> AuxiliaryTower:
        count.append(1)
        return Toy()

    return count


def test_a_tower_is_built_once_when_it_is_first_needed(built):
    assert list_auxiliary_towers() == ["toy_vit_s8"] and built == []
    tower = auxiliary_tower("toy_vit_s8")
    assert auxiliary_tower("toy_vit_s8") is tower and built == [1]
    assert isinstance(tower, AuxiliaryTower)


def test_it_is_frozen_and_returns_features_of_its_own_width(built):
    tower = auxiliary_tower("toy_vit_s8")
    assert not tower.training and not any(p.requires_grad for p in tower.parameters())
    dense = tower(torch.rand(2, 3, 20, 33), taps=((-1, "k"),))
    assert (dense.grid, dense.stride, dense.space) == ((2, 4), 8, "width")
    assert dense.taps[-1, "k"].shape == (2, 8, 5) and not dense.patches.requires_grad


def test_names_are_unique_and_unknown_ones_list_the_near_ones(built):
    with pytest.raises(ValueError, match="registered already"):
        register_auxiliary("toy_vit_s8")(Toy)
    with pytest.raises(ValueError, match=r"'toy_vit_b8'; near: toy_vit_s8"):
        auxiliary_tower("toy_vit_b8")


def test_each_precision_is_a_tower_of_its_own(built):
    half = auxiliary_tower("toy_vit_s8", dtype=torch.bfloat16)
    assert half.conv.weight.dtype == torch.bfloat16
    assert auxiliary_tower("toy_vit_s8").conv.weight.dtype == torch.float32


def test_the_table_names_what_the_methods_use():
    names = list_auxiliary_towers()
    assert {
        "dino_vit_b8",
        "dino_vit_b16",
        "dino_vit_s8",
        "dinov2_vit_b14_reg",
        "mae_vit_b16",
        "sam_vit_b",
    } <= set(names)
    for name in names:
        info = auxiliary_info(name)
        assert info.name == name and info.sources and info.licence
        assert info.sha256 is None or len(info.sha256) == 64
    assert auxiliary_info("dinov2_vit_b14").pos_embed != auxiliary_info("dinov2_vit_b14_reg").pos_embed


def test_missing_weights_are_named_with_the_place_for_them(monkeypatch):
    monkeypatch.setenv("OVSEG_OFFLINE", "1")
    with pytest.raises(WeightsUnavailableError, match=r"dino_vitbase8_pretrain.pth .*towers.dino_vit_b8"):
        require_auxiliary("dino_vit_b8")


def test_an_embedded_file_is_taken_where_it_lies(tmp_path, monkeypatch):
    file = tmp_path / "mine.safetensors"
    file.write_bytes(b"x")
    row = auxiliary.AuxiliaryInfo("mine", "vit", "vit_tiny_patch16_224", (str(file),))
    monkeypatch.setattr(auxiliary, "_table", {"mine": row})
    assert require_auxiliary("mine") == file
