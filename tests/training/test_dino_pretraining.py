"""Training of the self-supervised tower: views know where they lie, groups are learned, runs can be repeated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from emoji_fakes import fake_drawings, write_fake_drawings
from mmengine.config import Config
from safetensors.torch import load_file

from ovseg.datasets.emoji import EmojiBatches, Stage
from ovseg.towers import auxiliary
from ovseg.towers.dino import load_vit
from ovseg.training.dino_pretraining import DINOPretrainer, hide_blocks, sinkhorn
from ovseg.training.optim import MuonAdamWConstructor
from ovseg.training.run import train
from ovseg.training.views import View, change_colours, random_view

CONFIG = Path(__file__).parents[2] / "configs" / "emoji" / "dino_vit_tiny.py"
NAME = "dino_vit_tiny.emoji"
OPTIONS = {"patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 2, "img_size": 96}


@pytest.fixture(autouse=True)
def small_tower(monkeypatch):
    small = replace(auxiliary.auxiliary_info(NAME), options=OPTIONS)
    monkeypatch.setitem(auxiliary._table, NAME, small)
    return small


@pytest.fixture(scope="module")
def batch():
    batches = EmojiBatches([Stage(100, ((64, 6, 1.0),))], drawings=fake_drawings())
    return torch.from_numpy(batches[0]["image"])


def pretrainer(**changes) -> DINOPretrainer:
    torch.manual_seed(0)
    return DINOPretrainer(NAME, **{"patch_groups": 32, "image_groups": 16, "autocast": False, **changes})


def a_view(corner, side, flipped, size=8) -> View:
    shape = torch.zeros(1, 3, size, size)
    return View(shape, torch.tensor([corner]), torch.tensor([side]), torch.tensor([flipped]))


@pytest.mark.parametrize("flipped", [False, True])
def test_a_view_shows_its_part_of_the_image(flipped):
    ramps = torch.stack(
        [x.float() for x in torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")]
    )
    image = torch.cat([ramps, ramps[:1]])[None] / 64
    view = random_view(image, 16, (0.5, 0.5), 0.0, torch.Generator().manual_seed(4))
    view = replace(view, flipped=torch.tensor([flipped]))
    points = view.points(4)
    assert points[0, 1, 0, 1] - points[0, 0, 0, 1] == pytest.approx(0.125)
    steps = points[0, 0, 1:, 0] - points[0, 0, :-1, 0]
    torch.testing.assert_close(steps, torch.full((3,), -0.125 if flipped else 0.125))
    drawn = random_view(image, 16, (0.5, 0.5), 0.0, torch.Generator().manual_seed(4))
    where = drawn.points(16)[0]  # the ramps say which pixel is shown
    torch.testing.assert_close(drawn.image[0, 1], where[..., 0] - 0.5 / 64, atol=1e-4, rtol=0)
    torch.testing.assert_close(drawn.image[0, 0], where[..., 1] - 0.5 / 64, atol=1e-4, rtol=0)


def test_a_place_is_found_in_another_view():
    whole, right = a_view((0.0, 0.0), 1.0, False), a_view((0.5, 0.25), 0.5, True)
    maps = torch.arange(16.0).view(1, 1, 4, 4)
    own, inside = right.read(maps, right.points(4))
    assert inside.all() and torch.allclose(own, maps)  # its own points, mirrored as they are
    found, inside = right.read(maps, whole.points(4))
    expected = torch.zeros(1, 4, 4, dtype=torch.bool)
    expected[0, 1:3, 2:] = True
    assert torch.equal(inside, expected)
    assert found[0, 0, 1, 2] > found[0, 0, 1, 3]  # mirrored: further right in the image is further left in it


def test_colours_change_with_strength_alone():
    image, generator = torch.rand(4, 3, 8, 8), torch.Generator().manual_seed(0)
    torch.testing.assert_close(change_colours(image, 0.0, generator), image)
    changed = change_colours(image, 1.0, generator)
    assert changed.min() >= 0 and changed.max() <= 1 and (changed - image).abs().mean() > 0.02


def test_groups_are_equally_filled():
    torch.manual_seed(0)
    shares = sinkhorn(
        4 * torch.randn(400, 8) + torch.arange(8.0), iterations=20
    )  # the last group attracts all
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(400))
    torch.testing.assert_close(shares.sum(dim=0), torch.full((8,), 50.0), atol=1.0, rtol=0)


def test_blocks_are_hidden_up_to_a_share():
    hidden = hide_blocks(200, 8, 0.6, torch.Generator().manual_seed(0)).view(200, 8, 8)
    assert torch.equal(hidden[:, ::2, ::2], hidden[:, 1::2, 1::2])
    assert 0.25 < hidden.float().mean() < 0.35 and not hide_blocks(9, 8, 0.0, torch.Generator()).any()


def test_losses_fall_and_the_teacher_follows(batch):
    model = pretrainer(momentum=(0.9, 0.9))
    wrapper = MuonAdamWConstructor({"optimizer": {"lr": 1e-2, "weight_decay": 0.05}})(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [{names[id(p)] for p in group["params"]} for group in wrapper.optimizer.param_groups]
    assert not any(name.startswith("teacher") for name in set.union(*groups))
    assert all(".blocks." in name for name in groups[0]) and "student.vit.pos_embed" in groups[2]
    before, history = model.teacher.vit.blocks[0].attn.qkv.weight.clone(), []
    for step in range(30):
        losses = model(batch, step % 2)
        history.append([float(loss.detach()) for loss in losses.values()])
        wrapper.update_params(sum(losses.values()))
        model.update_teacher(step)
    first, last = (torch.tensor(part).mean(dim=0) for part in (history[:4], history[-4:]))
    assert (last < 0.95 * first).all()
    assert not torch.equal(before, model.teacher.vit.blocks[0].attn.qkv.weight)


def test_a_step_depends_on_its_number_alone(batch):
    first, second = pretrainer()(batch, 5), pretrainer()(batch, 5)
    other = pretrainer()(batch, 6)
    for name in first:
        assert torch.equal(first[name], second[name]) and not torch.equal(first[name], other[name])
    with pytest.raises(ValueError, match="only mode='loss'"):
        pretrainer()(batch, 0, mode="predict")


def test_a_training_resumes_and_leaves_a_tower(tmp_path, monkeypatch, small_tower):
    monkeypatch.setenv("OVSEG_CACHE", str(write_fake_drawings(tmp_path).parents[1]))
    changes = {
        "train_dataloader.batches.stages": [(4, [(64, 2, 0.5), (96, 2, 0.5)])],
        "train_dataloader.num_workers": 0,
        "train_cfg.max_iters": 4,
        "model.steps": 4,
        "model.patch_groups": 32,
        "default_hooks.checkpoint.interval": 2,
        "custom_hooks.0.interval": 3,
        "custom_hooks.0.scenes": 1,
        "custom_hooks.0.batches": 1,
    }
    straight = train(CONFIG, tmp_path / "straight", cfg_options=changes)
    train(CONFIG, tmp_path / "split", cfg_options={**changes, "train_cfg.max_iters": 2})
    resumed = train(CONFIG, tmp_path / "split", resume=True, cfg_options=changes)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name

    weights = tmp_path / "straight" / f"{NAME}.safetensors"
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, **OPTIONS)
    vit.load_state_dict(load_file(weights), strict=True)
    torch.testing.assert_close(
        vit.blocks[0].attn.qkv.weight, straight.teacher.vit.blocks[0].attn.qkv.weight, atol=1e-3, rtol=1e-3
    )
    assert load_vit(small_tower, weights)(torch.rand(1, 3, 48, 40)).grid == (6, 5)
    card = json.loads((tmp_path / "straight" / f"{NAME}.card.json").read_text("utf-8"))
    assert card["steps"] == 4 and set(card["figures"]["test"]) == {"out", "k", "v", "colours"}


def test_the_config_describes_the_row():
    cfg = Config.fromfile(str(CONFIG))
    assert cfg.model.tower == NAME == cfg.filename.rpartition("/")[2].removesuffix(".py") + ".emoji"
    assert cfg.train_dataloader.batches.groups == ["base", "novel"]
