"""Training of segmentors: samples by number, groups, checkpoints, the look at the data, killing and going on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from torch import nn

pytest.importorskip("mmseg")

from segmentation_run import config

from ovseg.datasets.benchmarks import BENCHMARKS
from ovseg.training import run
from ovseg.training.check_data import check_data
from ovseg.training.curves import read_curves
from ovseg.training.groups import LayerDecay, PatternGroups
from ovseg.training.samples import SampleNumbers, SeededSamples
from ovseg.vocab.vocabulary import Vocabulary

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("scenes")
    for name in "abcde":
        labels = rng.integers(0, 3, (7, 9)).repeat(10, 0).repeat(10, 1).astype(np.uint8)
        pixels = (80 * labels[..., None] + rng.integers(0, 30, (70, 90, 3))).astype(np.uint8)
        labels[:7] = 255
        for kind, array in (("images", pixels), ("masks", labels)):
            (root / kind).mkdir(exist_ok=True)
            Image.fromarray(array).save(root / f"{kind}/{name}.png")
    (root / "classes.txt").write_text("a\nb\nc\n")
    return root


class Noise:
    """A data set of mmengine's kind whose items are random numbers."""

    metainfo = {}  # noqa: RUF012

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return index, np.random.rand(), float(torch.rand(()))


def test_a_sample_depends_on_its_number_alone():
    one, other = SeededSamples(Noise(), seed=3), SeededSamples(Noise(), seed=3)
    forwards = [one[i] for i in range(12)]
    assert [other[i] for i in reversed(range(12))] == forwards[::-1]
    assert sorted(item[0] for item in forwards[:5]) == list(range(5))
    assert [item[0] for item in forwards[:5]] != [item[0] for item in forwards[5:10]]
    assert len({item[1] for item in forwards}) == 12
    assert [SeededSamples(Noise(), seed=4)[i] for i in range(5)] != forwards[:5]


def test_numbers_go_on_where_a_resume_left_off(monkeypatch):
    sampler = SampleNumbers()
    sampler.skip(6)
    numbers = iter(sampler)
    assert [next(numbers) for _ in range(3)] == [6, 7, 8]
    monkeypatch.setattr("ovseg.training.samples.get_dist_info", lambda: (1, 2))
    sampler = SampleNumbers()
    sampler.skip(2)
    numbers = iter(sampler)
    assert [next(numbers) for _ in range(3)] == [5, 7, 9]


def small_model() -> nn.Module:
    model = nn.ModuleDict({"backbone": nn.ModuleDict(), "head": nn.Linear(4, 3)})
    model["backbone"]["conv1"] = nn.Conv2d(3, 4, 2)
    model["backbone"]["resblocks"] = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
    return model


def test_groups_by_pattern_and_depth():
    constructor = PatternGroups(
        {"optimizer": {"type": "AdamW", "lr": 1.0, "weight_decay": 0.1}},
        {
            "rules": [{"pattern": r"^backbone\.", "lr": 0.5}],
            "layer_decay": {"pattern": r"resblocks\.(\d+)", "depth": 3, "rate": 0.1},
        },
    )
    model = small_model()
    optimizer = constructor(model).optimizer
    found = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    rates = {name: found[id(parameter)] for name, parameter in model.named_parameters()}
    assert rates["head.weight"] == (1.0, 0.1)
    assert rates["head.bias"] == (1.0, 0.0)
    assert rates["backbone.resblocks.2.weight"] == pytest.approx((0.05, 0.1))
    assert rates["backbone.resblocks.0.weight"] == pytest.approx((0.0005, 0.1))
    assert rates["backbone.conv1.weight"] == pytest.approx((0.00005, 0.1))
    assert LayerDecay(r"x(\d+)", 3, 0.1).factor("decode_head.conv") == 1


def test_groups_that_cannot_be():
    optimizer = {"optimizer": {"type": "AdamW", "lr": 1.0}}
    with pytest.raises(ValueError, match="'backbon!' fits no parameter"):
        PatternGroups(optimizer, {"rules": [{"pattern": "backbon!"}]})(small_model())
    with pytest.raises(ValueError, match="every one is frozen"):
        PatternGroups(optimizer, {"rules": [{"pattern": ".", "lr": 0}]})(small_model())
    model = small_model()
    PatternGroups(optimizer, {"rules": [{"pattern": "backbone", "lr": 0}]})(model)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]


def test_trains_keeps_the_best_and_tests(data, tmp_path):
    run.train(config(data, steps=4, frozen=True), tmp_path)
    (best,) = tmp_path.glob("best_mIoU_iter_*.pth")
    stored = torch.load(tmp_path / "iter_4.pth", weights_only=True)
    assert Vocabulary.from_dict(stored["meta"]["vocabulary"]).names == ("a", "b", "c")
    assert not any("backbone.visual" in name for name in stored["state_dict"])
    assert not any("backbone.visual" in name for name in stored["ema_state_dict"])
    assert any("decode_head.projection" in name for name in stored["state_dict"])
    found = run.test(config(data, frozen=True), best, tmp_path)
    assert 0 <= found["mIoU"] <= 100
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        run.test(config(data), tmp_path / "absent.pth", tmp_path)
    with pytest.raises(FileNotFoundError, match="no config"):
        run.test(tmp_path / "absent.py", best, tmp_path)
    for options, drawn in ({}, 0), ({"default_hooks.visualization.draw": True}, 5):
        local = dict(type="mmseg.SegLocalVisualizer", vis_backends=[dict(type="mmengine.LocalVisBackend")])
        cfg = config(data, frozen=True, visualizer=local)
        cfg.default_hooks["visualization"] = dict(type="mmseg.SegVisualizationHook", draw=True)
        run.test(cfg, best, tmp_path / f"drawn_{drawn}", options)
        assert len(list((tmp_path / f"drawn_{drawn}").rglob("*.png"))) == drawn


def test_curves_and_pictures_go_to_tensorboard(data, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    cfg = config(data, steps=4, visualizer=dict(type="mmseg.SegLocalVisualizer", name="board"))
    cfg.default_hooks.visualization = dict(type="mmseg.SegVisualizationHook", draw=True, interval=1)
    run.train(cfg, tmp_path)
    (folder,) = tmp_path.glob("*/vis_data")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    assert {"loss", "mIoU"} <= set(events.Tags()["scalars"])
    assert len(events.Scalars("loss")) == 4
    assert events.Tags()["images"]


def test_runs_of_one_process_keep_their_own_curves(data, tmp_path):
    shared = dict(
        type="mmengine.Visualizer", name="shared", vis_backends=[dict(type="mmengine.LocalVisBackend")]
    )
    for name in ("first", "second"):
        run.train(config(data, steps=2, visualizer=dict(shared)), tmp_path / name)
        assert read_curves(tmp_path / name)["loss"]["step"] == [1, 2]


def test_checkpoints_that_could_run_code_are_refused(data, tmp_path):
    class Code:
        def __reduce__(self):
            return print, ("code ran",)

    path = tmp_path / "iter_1.pth"
    torch.save({"state_dict": {}, "meta": Code()}, path)
    (tmp_path / "last_checkpoint").write_text(str(path))
    for call in (
        lambda: run.test(config(data), path, tmp_path),
        lambda: run.train(config(data), tmp_path, resume=True),
        lambda: run.train(config(data), tmp_path, resume=str(path)),
    ):
        with pytest.raises(ValueError, match="could run code"):
            call()


def test_mixed_precision_and_accumulation(data, tmp_path):
    cfg = config(data, steps=2)
    cfg.optim_wrapper.accumulative_counts = 2
    model = run.train(cfg, tmp_path, amp=True)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def kill_at_some_step(command, work_dir, env):
    """Starts a training and kills it hard soon after its second checkpoint."""
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not (work_dir / "iter_4.pth").is_file():
        assert process.poll() is None, "the training ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(np.random.default_rng().uniform(0, 0.3))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_killed_training_goes_on_to_equal_weights(data, tmp_path):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    script = str(Path(__file__).with_name("segmentation_run.py"))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([sys.executable, script, str(data), str(whole)], env=env, check=True, capture_output=True)
    command = [sys.executable, script, str(data), str(killed)]
    kill_at_some_step(command, killed, env)
    assert not (killed / "iter_12.pth").is_file()
    subprocess.run(command, env=env, check=True, capture_output=True)
    one, other = (torch.load(folder / "iter_12.pth", weights_only=True) for folder in (whole, killed))
    for key in ("state_dict", "ema_state_dict"):
        assert one[key].keys() == other[key].keys()
        differing = [n for n, value in one[key].items() if not torch.equal(value, other[key][n])]
        assert not differing
    for group, again in zip(one["optimizer"]["state"].values(), other["optimizer"]["state"].values()):
        assert all(torch.equal(group[name], again[name]) for name in group)
    bests = [[p.name for p in folder.glob("best_*.pth")] for folder in (whole, killed)]
    assert len(bests[0]) == len(bests[1]) == 1


@pytest.mark.parametrize(("score", "left"), [(1000.0, [4]), (-1.0, [8]), (None, [8])])
def test_the_best_is_known_after_a_kill(data, tmp_path, score, left):
    """A kill between writing the best checkpoint and noting it; None: between removing and writing it."""
    run.train(config(data, steps=4), tmp_path)
    (best,), last = tmp_path.glob("best_*.pth"), tmp_path / "iter_4.pth"
    file, other = (torch.load(path, weights_only=True) for path in (best, last))
    if score is None:
        best.unlink()
        other["message_hub"]["runtime_info"]["best_score"] = 1000.0
    else:
        file["message_hub"]["runtime_info"]["best_score"] = score
        torch.save(file, best)
        for key in ("best_score", "best_ckpt"):
            del other["message_hub"]["runtime_info"][key]
    torch.save(other, last)
    run.train(config(data, steps=8), tmp_path, resume=True)
    assert [path.name for path in tmp_path.glob("best_*.pth")] == [
        f"best_mIoU_iter_{step}.pth" for step in left
    ]


def test_look_at_the_data(data, tmp_path):
    cfg = config(data)
    cfg.model.decode_head.classes = ["a", "b: bee | wasp", "d"]
    found = check_data(cfg, tmp_path, limit=4)
    assert (found.images, found.looked_at) == (5, 4)
    assert found.ignored == pytest.approx(0.1)
    assert found.pixels.sum() == 4 * 63 * 90
    assert found.differing == (("c", "d"),)
    assert [path.name for path in found.pictures] == ["0.png", "1.png", "2.png", "3.png"]
    assert all(Image.open(path).size >= (90, 70) for path in found.pictures)
    text = "\n".join(found.lines())
    assert "4 of 5 images" in text
    assert "'c' is the model's 'd'" in text


def test_class_list_that_does_not_fit_is_refused(data):
    cfg = config(data)
    cfg.model.decode_head.classes = ["a", "b"]
    with pytest.raises(ValueError, match="model has 2 classes, the data set 3"):
        check_data(cfg)


def test_class_never_seen_is_said(data, tmp_path):
    cfg = config(data)
    labels = np.zeros((70, 90), np.uint8)
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        Image.fromarray(labels).save(tmp_path / f"{kind}/a.png")
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    cfg.train_dataloader.dataset.dataset.data_root = str(tmp_path)
    assert "b: 0.00 %   <- never seen" in "\n".join(check_data(cfg).lines())


def test_data_root_moves_every_data_set(tmp_path):
    cfg = Config(
        {
            "train_dataloader": {"dataset": {"dataset": {"data_root": "data/ade/ADEChallengeData2016"}}},
            "val_dataloader": {"dataset": {"data_root": "data/ade/ADEChallengeData2016"}},
        }
    )
    (tmp_path / "ade/ADEChallengeData2016").mkdir(parents=True)
    moved = run.prepare_config(cfg, tmp_path, data_root=tmp_path)
    below = str(tmp_path / "ade/ADEChallengeData2016")
    assert moved.train_dataloader.dataset.dataset.data_root == below
    assert moved.val_dataloader.dataset.data_root == below
    cfg.val_dataloader.dataset.data_root = "data/camvid"
    own = run.prepare_config(cfg, tmp_path, data_root=tmp_path)
    assert own.val_dataloader.dataset.data_root == str(tmp_path)


CONFIGS = sorted(p for p in (ROOT / "configs").rglob("*.py") if "_base_" not in p.parts)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_shipped_configs_survive_dump_and_reload(path, tmp_path):
    trains = "optim_wrapper" in Config.fromfile(str(path))
    cfg = run.prepare_config(path, amp=trains)  # as a training leaves it in its folder
    cfg.dump(str(tmp_path / "dumped.py"))
    again = Config.fromfile(str(tmp_path / "dumped.py"))
    assert again.to_dict() == cfg.to_dict()


@pytest.mark.parametrize(
    "path",
    [p for p in CONFIGS if p.parent.name in ("probes", "similarity")],
    ids=lambda p: f"{p.parent.name}/{p.stem}",
)
def test_shipped_configs_build(path):
    from mmengine.registry import MODELS, init_default_scope

    cfg = Config.fromfile(str(path))
    init_default_scope("mmseg")
    if not (ROOT / "ovseg/assets/vit_tiny.emoji.safetensors").is_file() and "r18" not in path.stem:
        pytest.skip("the embedded tower is not there")
    model = MODELS.build(cfg.model)
    wrapper = dict(cfg.optim_wrapper)
    constructor = wrapper.pop("constructor")
    optimizer = constructor(wrapper, wrapper.pop("paramwise_cfg", None))(model)
    assert optimizer.param_groups


@pytest.mark.parametrize(
    "name", [p.stem for p in (ROOT / "configs/_base_/datasets").glob("*.py") if p.stem in BENCHMARKS]
)
def test_base_data_sets_name_their_classes(name):
    cfg = Config.fromfile(str(ROOT / f"configs/_base_/datasets/{name}.py"))
    source = cfg.train_dataloader.dataset.dataset
    (loader,) = [step for step in source.pipeline if "num_classes" in step]
    assert loader["num_classes"] == len(source.type.METAINFO["classes"])
