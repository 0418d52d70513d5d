"""``ovseg convert``: checkpoints of several kinds to release files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import ovseg
from ovseg.cli.main import main
from ovseg.towers.weights import load_clip
from ovseg.training.export import export_learned


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)


def test_a_bare_clip_needs_a_method(tmp_path, capsys, image):
    weights = Path(ovseg.__file__).parent / "assets/vit_tiny.emoji.safetensors"
    out = tmp_path / "out.safetensors"
    copy = tmp_path / "clip.safetensors"
    copy.write_bytes(weights.read_bytes())
    copy.with_suffix(".json").write_bytes(weights.with_suffix(".json").read_bytes())
    assert main(["convert", str(copy), str(out)]) == 2
    assert "--method maskclip" in capsys.readouterr().err
    assert main(["convert", str(copy), str(out), "--method", "naclip", "--activation", "gelu"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    found, true = ovseg.load(str(out)), ovseg.build("naclip", "vit_tiny.emoji", protocol="default")
    expected = true.segment(image, ["cat", "dog"], background="none").label_map
    assert np.array_equal(found.segment(image, ["cat", "dog"], background="none").label_map, expected)


@pytest.mark.filterwarnings("ignore:.*head is untrained:UserWarning")
def test_learned_parts_are_recognised(tmp_path, capsys, monkeypatch):
    """CLIP-DINOiser's file holds the learned parts alone."""
    clip = load_clip("vit_tiny.emoji")
    model = ovseg.build("clip_dinoiser", clip).model
    path = export_learned(model, "vit_tiny.emoji", tmp_path / "head.safetensors")
    monkeypatch.setattr("ovseg.methods.trained.load_clip", lambda name, allow_download: clip)
    out = tmp_path / "out.safetensors"
    words = tmp_path / "words.txt"
    words.write_text("cat\ndog\n")
    assert main(["convert", str(path), str(out), "--vocab", str(words)]) == 0
    loaded = ovseg.load(out)
    assert loaded.vocabulary.names == ("cat", "dog")
    assert "2 classes" in capsys.readouterr().err


def test_wrong_use(tmp_path, capsys):
    for arguments, cure in (
        (["x.pth", "x.pt"], "end in .safetensors"),
        (["x.pth", "x.safetensors"], "no checkpoint x.pth"),
        (["x.pth", "x.safetensors", "--config", "c.py", "--method", "clip"], "leave out --method"),
    ):
        assert main(["convert", *arguments]) == 2
        assert cure in capsys.readouterr().err


WORDS = ["cat: kitten | cat", "dog"]
CONFIG = f"""
model = dict(
    type="ovseg.OpenVocabularySegmentor",
    method="maskclip",
    tower="vit_tiny.emoji",
    classes={WORDS},
    templates="imagenet7",
)
default_scope = "mmseg"
"""


@pytest.fixture
def training(tmp_path):
    """A config, and a checkpoint of its model after some training."""
    pytest.importorskip("mmseg")
    from ovseg.models.segmentors import OpenVocabularySegmentor

    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    model = OpenVocabularySegmentor("maskclip", "vit_tiny.emoji", WORDS, templates="imagenet7")
    with torch.no_grad():
        model.segmenter.clip.visual.ln_post.weight.mul_(1.2)
        model.words.log_scale.fill_(3.0)
    torch.save({"state_dict": model.state_dict(), "meta": {}}, tmp_path / "best.pth")
    return path, tmp_path / "best.pth", model


def test_result_of_a_training(training, tmp_path):
    config, checkpoint, model = training
    out = tmp_path / "out.safetensors"
    assert main(["convert", str(checkpoint), str(out), "--config", str(config)]) == 0
    loaded = ovseg.load(out)
    assert loaded.vocabulary.classes[0].words == ("kitten", "cat")
    assert loaded.protocol.templates == "imagenet7"
    clip = loaded.model.clip
    assert clip.logit_scale.item() == pytest.approx(3.0)
    torch.testing.assert_close(clip.visual.ln_post.weight, model.segmenter.clip.visual.ln_post.weight)


def test_result_of_another_training_is_refused(training, tmp_path, capsys):
    config, checkpoint, model = training
    weights = {name: value for name, value in model.state_dict().items() if "ln_post" not in name}
    torch.save({"state_dict": weights, "meta": {}}, checkpoint)
    assert main(["convert", str(checkpoint), str(tmp_path / "x.safetensors"), "--config", str(config)]) == 2
    assert "is not of the training" in capsys.readouterr().err
