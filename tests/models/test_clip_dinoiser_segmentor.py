"""CLIP-DINOiser and FOUND trained by the loop, on images whose labels nobody reads."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("mmseg")
sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

from segmentation_run import VIT, config

from ovseg.methods.clip_dinoiser import CLIPDINOiser
from ovseg.methods.clip_dinoiser.found import Found
from ovseg.methods.clip_dinoiser.training import optimiser
from ovseg.models.segmentors import CLIPDINOiserGroups, CLIPDINOiserSegmentor, FoundTrainer
from ovseg.towers import auxiliary
from ovseg.training.run import train
from ovseg.training.targets import make_targets
from ovseg.training.transforms import RandomBrightness

LEARNED = {f"segmenter.{part}.{leaf}" for part in ("obj_proj", "bkg_decoder") for leaf in ("weight", "bias")}
DINO = "dino_vit_s16"


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    for name in "abc":
        labels = rng.integers(0, 3, (7, 9)).repeat(10, 0).repeat(10, 1).astype(np.uint8)
        pixels = (80 * labels[..., None] + rng.integers(0, 30, (70, 90, 3))).astype(np.uint8)
        for kind, array in (("images", pixels), ("masks", labels)):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / f"{kind}/{name}.png")
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    return tmp_path


@pytest.fixture(autouse=True)
def small_dino(monkeypatch):
    """A random DINO by a published name; how many images it has seen."""
    from dataclasses import replace

    from ovseg.towers.dino import SelfSupervisedViT, create_vit

    seen = []

    class Dino(SelfSupervisedViT):
        def read_taps(self, image01, taps):
            seen.append(len(image01))
            return super().read_taps(image01, taps)

    def build():
        torch.manual_seed(0)
        options = {"embed_dim": 48, "num_heads": 3, "depth": 2, "img_size": 64, "patch_size": 16}
        return Dino(create_vit(replace(info, options=options)), info)

    info = auxiliary.auxiliary_info(DINO)
    monkeypatch.setitem(auxiliary._builders, DINO, build)
    monkeypatch.setattr(auxiliary, "_built", {})
    return seen


def unlabelled(data, steps, model, **changes):
    """A training whose images come without labels."""
    cfg = config(data, steps=steps)
    pipeline = cfg.train_dataloader.dataset.dataset.pipeline
    cfg.train_dataloader.dataset.dataset.pipeline = [s for s in pipeline if s["type"] != "ovseg.LoadLabels"]
    cfg.model = model
    cfg.param_scheduler = [dict(type="MultiStepLR", milestones=[3], gamma=0.1, by_epoch=False)]
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook["type"] != "EMAHook"]
    for key, value in changes.items():
        cfg[key] = value
    return cfg


def run(data, folder, model, steps=4, resume=False, **changes):
    return train(unlabelled(data, steps, model, **changes), folder, resume)


@pytest.fixture
def found(tmp_path):
    """FOUND's convolution, in its authors' layout."""
    generator = torch.Generator().manual_seed(0)
    layers = {"weight": torch.randn(1, 48, 1, 1, generator=generator), "bias": torch.zeros(1)}
    torch.save({"decoder": layers}, tmp_path / "decoder_weights.pt")
    return tmp_path / "decoder_weights.pt"


def dinoiser(found, targets=None):
    return dict(
        type=CLIPDINOiserSegmentor, tower=VIT, classes=["sky", "road", "tree"], templates="imagenet7",
        auxiliary=DINO, saliency=str(found), targets=targets, fields=dict(channels=8, guide_block=-2),
    )  # fmt: skip


GROUPS = dict(
    constructor=CLIPDINOiserGroups,
    optimizer=dict(type="AdamW", lr=5e-3, weight_decay=0.01),
    paramwise_cfg=dict(background_lr=2e-2),
)


def weights(folder, step):
    return torch.load(folder / f"iter_{step}.pth", weights_only=True)["state_dict"]


def test_found_learns_its_convolution_alone(data, tmp_path):
    hooks = dict(
        checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=2),
        logger=dict(type="LoggerHook", interval=1, log_metric_by_epoch=False),
    )
    without = dict(val_dataloader=None, val_evaluator=None, val_cfg=None, default_hooks=hooks)
    model = dict(type=FoundTrainer, auxiliary=DINO, width=48, coarse_steps=2, around=3)
    run(data, tmp_path / "run", model, **without)
    before, after = weights(tmp_path / "run", 2), weights(tmp_path / "run", 4)
    assert set(after) == {"found.decoder.weight", "found.decoder.bias", "step"}
    assert (before["step"], after["step"]) == (2, 4)
    assert not torch.equal(before["found.decoder.weight"], after["found.decoder.weight"])
    read = Found.from_file(tmp_path / "run" / "iter_4.pth", DINO)
    assert torch.equal(read.decoder.weight, after["found.decoder.weight"])


def test_found_says_that_it_is_a_teacher(small_dino):
    with pytest.raises(ValueError, match="used as a teacher"):
        FoundTrainer(DINO, 48)(torch.rand(1, 3, 64, 64), mode="predict")


def test_trains_without_labels_and_keeps_no_teacher(data, found, tmp_path, small_dino):
    model = run(data, tmp_path / "run", dinoiser(found), optim_wrapper=GROUPS)
    assert small_dino == [2] * 4  # one pass a step serves both teachers
    before, after = weights(tmp_path / "run", 2), weights(tmp_path / "run", 4)
    assert {name for name in after if not name.startswith(("segmenter.clip.", "words."))} == LEARNED
    assert not any(name.startswith("segmenter.clip.visual") for name in after)
    assert {name for name, value in after.items() if not torch.equal(value, before[name])} == LEARNED
    assert not any(module is model.teachers.auxiliary for module in model.modules())
    assert CLIPDINOiser.owns(after) and "obj_proj.weight" in CLIPDINOiser.convert(after)
    # resumed, and with targets that were made beforehand
    middle, targets = str(tmp_path / "run" / "iter_2.pth"), str(tmp_path / "targets")
    run(data, tmp_path / "resumed", dinoiser(found), optim_wrapper=GROUPS, resume=middle)
    cfg = unlabelled(data, 4, dinoiser(found, targets))
    del small_dino[:]
    assert make_targets(cfg, 1) == 1
    assert make_targets(cfg) == 4  # of which one is there
    run(data, tmp_path / "stored", dinoiser(found, targets), optim_wrapper=GROUPS)
    assert len(small_dino) == 4  # nobody was asked again
    for other in (weights(tmp_path / name, 4) for name in ("resumed", "stored")):
        for name in LEARNED:
            assert torch.equal(after[name], other[name]), name


def test_targets_need_a_folder(data, found):
    with pytest.raises(ValueError, match="no folder for targets"):
        make_targets(unlabelled(data, 4, dinoiser(found)))


def test_groups_are_the_authors(found):
    model = CLIPDINOiserSegmentor(**{k: v for k, v in dinoiser(found).items() if k != "type"})
    ours = CLIPDINOiserGroups({"optimizer": GROUPS["optimizer"]}, GROUPS["paramwise_cfg"])(model).optimizer
    theirs, _ = optimiser(model.segmenter, 5e-3, 2e-2)
    for one, other in zip(ours.param_groups, theirs.param_groups, strict=True):
        assert [id(p) for p in one["params"]] == [id(p) for p in other["params"]]
        assert (one["lr"], one["weight_decay"]) == (other["lr"], other["weight_decay"])
    assert {name for name, p in model.named_parameters() if p.requires_grad} == LEARNED


def test_brightness_is_torchvisions():
    from torchvision.transforms.functional import adjust_brightness

    np.random.seed(1)
    factor = np.random.uniform(0.5, 1.5)
    np.random.seed(1)
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    ours = RandomBrightness(0.5).transform({"img": image})["img"]
    theirs = adjust_brightness(torch.from_numpy(image.copy()).permute(2, 0, 1), factor).permute(1, 2, 0)
    assert np.array_equal(ours, theirs.numpy())
