"""Training a tower: its forward is the tower's own, its losses use the masks, its steps can be resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from emoji_fakes import fake_drawings, write_fake_drawings
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from torch import nn

from ovseg.datasets.emoji import EmojiBatches, Stage, training_texts, word_table
from ovseg.evaluation.emoji import READOUTS
from ovseg.towers.tokenizer import Tokenizer
from ovseg.towers.weights import load_clip
from ovseg.training.clip_pretraining import CLIPPretrainer, whiten_patches
from ovseg.training.export import full_state_dict
from ovseg.training.loop import StepSampler, step_loader
from ovseg.training.losses import RegionTargets, caption_loss, name_loss, patch_loss, region_loss
from ovseg.training.optim import MuonAdamWConstructor, StableDecayLR
from ovseg.training.run import train
from ovseg.training.tokens import CompactTokenizer

MODEL = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 96, "layers": 2, "width": 48, "head_width": 24, "patch_size": 8},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
GROUPS = ["base", "novel"]
RESNET = {**MODEL, "vision_cfg": {"image_size": 96, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}}
CONFIG = Path(__file__).parents[2] / "configs" / "emoji" / "clip_vit_tiny.py"


@pytest.fixture(scope="module")
def batches() -> EmojiBatches:
    return EmojiBatches([Stage(100, ((64, 8, 1.0),))], drawings=fake_drawings())


def pretrainer(model=MODEL, **changes) -> CLIPPretrainer:
    torch.manual_seed(0)
    return CLIPPretrainer(model, GROUPS, [0.5] * 3, [0.25] * 3, **{"autocast": False, **changes})


def tensors(batch):
    return next(iter(step_loader([batch], workers=0)))


def test_compact_tokens_are_the_full_ones_renumbered():
    table = word_table()
    texts = training_texts(table, table.select("base", "novel"))
    compact, full = CompactTokenizer(texts, 32), Tokenizer(32)
    ids = torch.tensor(compact.token_ids)
    rows = compact(texts[:40])
    assert rows.max() == len(compact) - 1
    for row, text in zip(rows, texts):
        tokens = full.encode(text)
        assert ids[row[: len(tokens)]].tolist() == tokens
        assert row.argmax() == len(tokens) - 1
    with pytest.raises(ValueError, match="training texts lack"):
        compact(["a hippopotamus"])


def test_every_text_of_a_training_can_be_encoded(batches):
    tokenizer = pretrainer().tokenizer
    for step in range(30):
        batch = batches[step]
        tokenizer(batch["captions"])
        tokenizer(batch["names"])


def test_the_pass_in_training_is_the_towers_own_forward(batches):
    model = pretrainer(interpolate=1.0).eval()
    image = model.normalise(torch.from_numpy(batches[0]["image"]))
    with torch.no_grad():
        overall, (maskclip, value) = model.reader.read(image, None, torch.Generator().manual_seed(0))
        assert torch.allclose(overall, model.clip.encode_image(image), atol=1e-5)
        for dense, name in ((maskclip, "maskclip"), (value, "value")):
            expected = model.visual.forward_dense(image, READOUTS[name]).patches.flatten(2).transpose(1, 2)
            assert torch.allclose(dense, expected, atol=1e-5)


def test_a_resnet_is_read_as_maskclip_reads_it(batches):
    model = pretrainer(RESNET).eval()
    image = model.normalise(torch.from_numpy(batches[0]["image"]))
    with torch.no_grad():
        overall, (value,) = model.reader.read(image, None, torch.Generator())
        assert torch.allclose(overall, model.clip.encode_image(image), atol=1e-5)
        expected = model.visual.forward_dense(image).patches.flatten(2).transpose(1, 2)
        assert torch.allclose(value, expected, atol=1e-5)
    with pytest.raises(ValueError, match="settings of ViTs"):
        pretrainer(RESNET, dropout={"keep": 0.5})


def test_positions_are_a_window_of_the_table():
    model = pretrainer(interpolate=0.0)
    table = model.visual.positional_embedding
    found = model.reader.positions((4, 5), torch.Generator().manual_seed(3))
    grid = table[1:].unflatten(0, (12, 12))
    windows = [grid[i : i + 4, j : j + 5].flatten(0, 1) for i in range(9) for j in range(8)]
    assert sum(torch.equal(found[1:], window) for window in windows) == 1
    assert torch.equal(found[0], table[0])


def test_dropped_patches_are_texture(batches):
    model = pretrainer(dropout={"keep": 0.5, "until": 10})
    batch = tensors(batches[1])
    targets = RegionTargets.from_instances(batch["instances"], batch["labels"], 8)
    kept = model.reader.kept(targets, 1, torch.Generator().manual_seed(0))
    assert kept.shape == (8, 32)
    for share, keep in zip(targets.shares, kept):
        showing = (share[:, 0] < 0.85).nonzero()[:, 0].tolist()
        assert len(showing) > 32 or set(showing) <= set(keep.tolist())
    assert model.reader.kept(targets, 10, torch.Generator()) is None


def test_shares_are_areas():
    instances = torch.zeros(1, 16, 16, dtype=torch.uint8)
    instances[0, :8, :4] = 1
    targets = RegionTargets.from_instances(instances, torch.tensor([[5, 2]]), 8)
    assert targets.shares[0].tolist() == [[0.5, 0.5], [1, 0], [1, 0], [1, 0]]


def test_region_loss_reads_only_what_the_mask_covers():
    names = torch.eye(4)
    shares = torch.zeros(1, 8, 2)
    shares[0, :4, 1], shares[0, 4:, 0] = 1, 1
    targets = RegionTargets(shares, torch.tensor([[3, 0]]))
    patches = torch.zeros(1, 8, 4)
    patches[0, :4, 0], patches[0, 4:, 3] = 1, 1
    right = region_loss(patches, targets, names, torch.tensor(50.0))
    wrong = region_loss(patches.flip(1), targets, names, torch.tensor(50.0))
    assert right < 1e-6 < 40 < wrong
    absent = RegionTargets(shares, torch.tensor([[-1, -1]]))
    assert region_loss(patches, absent, names, torch.tensor(50.0)) == 0
    generator = torch.Generator().manual_seed(0)
    assert patch_loss(patches, targets, names, torch.tensor(50.0), generator) < 1e-6
    assert patch_loss(patches, absent, names, torch.tensor(50.0), generator) == 0


def test_caption_and_name_losses():
    unit = F.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    scale = torch.tensor(10.0)
    logits = 10 * unit @ unit.T
    expected = (-logits.log_softmax(0).diag() - logits.log_softmax(1).diag()).mean() / 2
    assert torch.allclose(caption_loss(unit, unit, scale), expected)
    assert name_loss(unit, unit, torch.arange(5), scale) < name_loss(
        unit, unit, torch.arange(5).roll(1), scale
    )
    assert name_loss(unit[:0], unit, torch.arange(0), scale) == 0


def test_whitened_patches_have_little_correlation():
    conv = nn.Conv2d(3, 48, 8, 8, bias=False)
    smooth = F.interpolate(
        torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0)), scale_factor=8
    )
    whiten_patches(
        conv, smooth + 0.3 * torch.randn(16, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    )
    out = conv(smooth).transpose(0, 1).flatten(1)
    spread = out[:3] @ out[:3].T
    assert (spread - spread.diag().diag()).abs().max() < 0.2 * spread.diag().min()


def test_schedule_warms_up_stays_and_decays():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = StableDecayLR(optimizer, warmup=4, decay_from=10, end=20, floor=0.1)
    rates = []
    for _ in range(25):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert rates[10] == 2.0 and rates[15] == pytest.approx(2 * 0.55) and rates[24] == pytest.approx(0.2)


def test_schedule_can_be_moved_on_resume():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    short = StableDecayLR(optimizer, warmup=1, decay_from=10, end=20)
    for _ in range(15):
        optimizer.step()
        short.step()
    long = StableDecayLR(optimizer, warmup=1, decay_from=100, end=200)
    long.load_state_dict(short.state_dict())
    optimizer.step()
    long.step()
    assert long.last_step == 16 and optimizer.param_groups[0]["lr"] == 2.0


def wrapper_of(model: nn.Module) -> OptimWrapper:
    return MuonAdamWConstructor({"optimizer": {"lr": 1e-2, "weight_decay": 0.1}})(model)


def test_muon_takes_the_matrices_of_blocks_and_decay_spares_embeddings():
    model = pretrainer()
    optimizer = wrapper_of(model).optimizer
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [{names[id(p)] for p in group["params"]} for group in optimizer.param_groups]
    assert set.union(*groups) == set(names.values()) and sum(map(len, groups)) == len(names)
    assert all("resblocks" in name and name.endswith("weight") for name in groups[0])
    assert {"clip.visual.conv1.weight", "clip.visual.proj"} <= groups[1]
    assert {
        "clip.visual.positional_embedding",
        "clip.text.token_embedding.weight",
        "clip.logit_scale",
    } <= groups[2]
    assert optimizer.param_groups[2]["weight_decay"] == 0


def test_muon_takes_convolutions_of_stages_as_matrices(batches):
    model = pretrainer(RESNET)
    wrapper = wrapper_of(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    taken = {names[id(p)] for p in wrapper.optimizer.param_groups[0]["params"]}
    assert "clip.visual.layer3.0.conv2.weight" in taken
    assert not {"clip.visual.conv1.weight", "clip.visual.attnpool.v_proj.weight"} & taken
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    kernel = model.visual.layer3[0].conv2.weight
    before = kernel.detach().clone()
    wrapper.update_params(sum(model(**tensors(batches[0])).values()))
    assert {name: value.shape for name, value in model.state_dict().items()} == shapes
    change = torch.linalg.svdvals((kernel.detach() - before).flatten(1))
    assert change[0] > 0 and change[-1] > 0.3 * change[0]  # as good as orthogonal


@pytest.mark.parametrize("architecture", [MODEL, RESNET], ids=["vit", "resnet"])
def test_optimizer_state_survives_saving(batches, architecture):
    batch = tensors(batches[0])

    def steps(model, wrapper, number):
        for _ in range(number):
            wrapper.update_params(sum(model(**batch).values()))

    straight = pretrainer(architecture)
    wrapper = wrapper_of(straight)
    steps(straight, wrapper, 4)
    first = pretrainer(architecture)
    wrapper = wrapper_of(first)
    steps(first, wrapper, 2)
    second = pretrainer(architecture)
    second.load_state_dict(first.state_dict())
    resumed = wrapper_of(second)
    resumed.load_state_dict(wrapper.state_dict())
    for group in resumed.optimizer.param_groups:
        assert any(group is own for part in resumed.optimizer.parts for own in part.param_groups)
    steps(second, resumed, 2)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


@pytest.mark.parametrize(
    ("architecture", "paths"), [(MODEL, ("maskclip", "value")), (RESNET, ("value",))], ids=["vit", "resnet"]
)
def test_a_few_steps_reduce_every_loss(batches, architecture, paths):
    model = pretrainer(architecture)
    wrapper, batch = wrapper_of(model), tensors(batches[0])
    before = model(**batch)
    for _ in range(12):
        wrapper.update_params(sum(model(**batch).values()))
    after = model(**batch)
    dense = {f"loss_{what}_{path}" for what in ("region", "patch") for path in paths}
    assert set(after) == {"loss_caption", "loss_name", *dense}
    assert all(after[key] < before[key] for key in before)


def test_pairs_alone_use_no_mask(batches):
    model = pretrainer(weights={"region": 0, "patch": 0}, dropout={"keep": 0.5, "until": 9})
    batch = tensors(batches[0])
    losses = model(**batch)
    assert set(losses) == {"loss_caption", "loss_name"}
    other = model(**{**batch, "instances": torch.zeros_like(batch["instances"])})
    assert all(torch.equal(losses[key], other[key]) for key in losses)


def test_configs_describe_models():
    for name, paths, stride in (
        ("clip_vit_tiny", ["maskclip", "value"], 8),
        ("clip_vit_tiny_pairs", [], 8),
        ("clip_rn_tiny", ["value"], 32),
    ):
        cfg = Config.fromfile(str(CONFIG.with_name(f"{name}.py"))).to_dict()["model"]
        model = CLIPPretrainer(**{key: value for key, value in cfg.items() if key != "type"})
        assert list(model.reader.paths) == paths
        assert model.visual.stride == stride


def test_sampler_goes_on_where_a_resume_left_off():
    sampler = StepSampler(6)
    sampler.skip(4)
    assert list(sampler) == [4, 5]


def small_config(**changes) -> Config:
    cfg = Config.fromfile(str(CONFIG))
    sizes = [(64, 4, 0.5), (96, 3, 0.5)]
    cfg.merge_from_dict(
        {
            "model.model": MODEL,
            "model.dropout": {"keep": 0.7, "until": 3},
            "train_dataloader.batches.stages": [(3, sizes), (4, sizes)],
            "train_dataloader.num_workers": 0,
            "train_cfg.max_iters": 4,
            "param_scheduler.0.warmup": 2,
            "param_scheduler.0.decay_from": 3,
            "param_scheduler.0.end": 4,
            "default_hooks.checkpoint.interval": 2,
            "custom_hooks.2.interval": 4,
            "custom_hooks.2.scenes": 2,
            "custom_hooks.3.scenes": 1,
            "custom_hooks.3.name": "tiny.x",
            **changes,
        }
    )
    return cfg


def without_card(cfg: Config) -> Config:
    cfg.custom_hooks = cfg.custom_hooks[:3]
    return cfg


def test_training_stops_resumes_and_exports(tmp_path, monkeypatch):
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path))
    write_fake_drawings(tmp_path)
    train(without_card(small_config()), tmp_path / "straight")
    train(without_card(small_config(**{"train_cfg.max_iters": 2})), tmp_path / "halves")
    train(small_config(), tmp_path / "halves", resume=True)
    straight, halves = (
        torch.load(tmp_path / run / "iter_4.pth", weights_only=True) for run in ("straight", "halves")
    )
    for name, value in straight["state_dict"].items():
        assert torch.equal(value, halves["state_dict"][name]), name
    assert not list(tmp_path.glob("**/.ovseg-*"))

    path = tmp_path / "halves" / "tiny.x.safetensors"
    loaded = load_clip(path)
    assert loaded.info.mean == tuple(small_config().model.mean)
    assert loaded.info.background_words == word_table().textures
    onward = pretrainer(start=str(path)).clip.state_dict()
    for key, value in onward.items():
        assert torch.allclose(value, halves["state_dict"][f"clip.{key}"], atol=1e-3, rtol=1e-3), key
    rows = loaded.model.text.token_embedding.weight
    ids = halves["state_dict"]["token_ids"]
    untouched = torch.ones(len(rows), dtype=torch.bool)
    untouched[ids] = False
    assert not rows[untouched].any() and rows[ids].any(dim=1).all()
    card = json.loads(path.with_suffix(".json").read_text())["card"]
    assert card["steps"] == 4 and 12 <= card["images"] <= 16
    assert card["recipe"] == "configs/emoji/clip_vit_tiny.py"
    paths = {f"{what}_{path}" for what in ("pooled_top1", "object_iou") for path in ("value", "maskclip")}
    for split, artist in (("val", "streamline"), ("test", "twemoji")):
        figures = card["figures"][split]
        assert figures.pop("artist") == artist
        assert set(figures) == {"cls_top1", *paths}
        assert all(0 <= value <= 100 for value in figures.values())
    assert card["curves"]["val/cls_top1"]["step"] == [2, 4]
    assert (tmp_path / "halves" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train(small_config(), tmp_path, resume=str(tmp_path / "nowhere.pth"))


def test_export_puts_every_row_where_clips_tokenizer_finds_it():
    model = pretrainer()
    state = full_state_dict(model)
    tokens = Tokenizer(32)(["a photo of a cat.", "brick wall"])
    compact = model.tokenizer(["a photo of a cat.", "brick wall"])
    length = compact.shape[1]
    wide = state["token_embedding.weight"][tokens[:, :length]]
    ends = tokens.argmax(1)
    for row, end in enumerate(ends):
        small = model.clip.text.token_embedding(compact[row, : end + 1])
        assert torch.equal(wide[row, : end + 1], small)


@pytest.mark.slow
def test_open_clip_loads_the_export_strictly_and_agrees():
    import open_clip

    model = pretrainer().eval()
    other = open_clip.CLIP(MODEL["embed_dim"], dict(MODEL["vision_cfg"]), dict(MODEL["text_cfg"])).eval()
    other.load_state_dict(full_state_dict(model), strict=True)
    image = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        assert torch.allclose(other.encode_image(image), model.clip.encode_image(image), atol=1e-5)
        texts = ["a cat", "a dog on grass"]
        ours = model.clip.encode_text(model.tokenizer(texts))
        assert torch.allclose(other.encode_text(Tokenizer(32)(texts)), ours, atol=1e-5)
