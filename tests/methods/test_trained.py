"""Files that hold what was learned on a published CLIP."""

from __future__ import annotations

import pytest
import torch

import ovseg
from ovseg.methods.cat_seg.config import AggregatorConfig
from ovseg.methods.clip_dinoiser import CLIPDINOiser
from ovseg.methods.trained import load_trained
from ovseg.towers.checkpoints import CheckpointError, read_state_dict
from ovseg.towers.clip import CLIP, architecture
from ovseg.towers.table import TowerInfo
from ovseg.towers.weights import load_clip
from ovseg.training.export import export_learned

BASE, FIELDS = "vit_tiny.emoji", {"channels": 16}


@pytest.fixture
def learned(tmp_path, monkeypatch):
    """A model whose head and one tensor of whose tower were trained, and its file, in the method's table."""
    clip, method = load_clip(BASE).model, CLIPDINOiser(**FIELDS)
    model = method.build(clip, method.readout)
    with torch.no_grad():
        clip.visual.ln_post.weight.mul_(1.5)
    path = export_learned(model, BASE, tmp_path / "clip_dinoiser_test.emoji.safetensors")
    row = TowerInfo("clip_dinoiser_test.emoji", "", sources=(str(path),), base=BASE)
    monkeypatch.setattr(CLIPDINOiser, "trained", {"test.emoji": row})
    return model, path


def test_only_what_was_learned_is_in_the_file(learned):
    _, path = learned
    names = set(read_state_dict(path))
    assert {name for name in names if name.startswith("clip.")} == {"clip.visual.ln_post.weight"}
    assert "obj_proj.weight" in names


def test_it_completes_the_published_tower(learned):
    model, _ = learned
    predictor = ovseg.build("clip_dinoiser", "test.emoji", **FIELDS)
    assert predictor.name == "clip_dinoiser_test.emoji"
    found, true = predictor.model.state_dict(), model.state_dict()
    assert set(found) == set(true)
    for name, value in true.items():
        torch.testing.assert_close(found[name], value, atol=1e-3, rtol=1e-3)


def test_a_file_of_another_method_is_refused(learned, tmp_path, monkeypatch):
    path = export_learned(load_clip(BASE).model, BASE, tmp_path / "other.safetensors")
    row = TowerInfo("clip_dinoiser_test.emoji", "", sources=(str(path),), base=BASE)
    monkeypatch.setattr(CLIPDINOiser, "trained", {"test.emoji": row})
    with pytest.raises(CheckpointError, match="no checkpoint of CLIP-DINOiser"):
        load_trained(CLIPDINOiser, "test.emoji")


def _whole(tmp_path, width):
    """A checkpoint of CAT-Seg, towers and all, with a text tower of some width."""
    from ovseg.methods.cat_seg import CATSeg

    vision = {"image_size": 32, "layers": 1, "width": 64, "head_width": 64, "patch_size": 16}
    text = {"context_length": 8, "vocab_size": 49408, "width": width, "heads": width // 40, "layers": 1}
    clip = CLIP(architecture({"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}))
    method = CATSeg(
        grid=2,
        canvas=None,
        aggregator=AggregatorConfig(width=32, decoder_dims=(16, 16), decoder_guidance_dims=(8, 8)),
    )
    model = method.build(clip, method.readout)
    torch.save(model.state_dict(), tmp_path / "whole.pth")
    return CATSeg, tmp_path / "whole.pth"


def test_heads_of_unusual_width_are_not_guessed(tmp_path):
    method, path = _whole(tmp_path, 160)
    with pytest.raises(CheckpointError, match=r"how many heads a tower of width 160 has.*--config"):
        load_trained(method, path)


@pytest.mark.parametrize(("given", "used"), [(None, "quick_gelu"), ("gelu", "gelu")])
def test_activation_of_both_towers(tmp_path, given, used):
    method, path = _whole(tmp_path, 64)
    config = load_trained(method, path, activation=given).clip.model.config
    assert (config.vision.blocks.activation, config.text.blocks.activation) == (used, used)
