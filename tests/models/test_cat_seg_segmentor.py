"""CAT-Seg trained by mmseg's loop, and what becomes of the checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("mmseg")
sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

from segmentation_run import config

import ovseg
from ovseg.models.segmentors import CATSegGroups, CATSegSegmentor
from ovseg.training.hooks import PlainCheckpoint
from ovseg.training.release import trained_predictor
from ovseg.training.run import train

# Heads are 64 channels wide, and activations OpenAI's, as is taken for granted of a file of unknown origin.
VIT = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}
HEAD = {
    "width": 32, "window": 4, "appearance_dim": 12, "text_dim": 16, "guidance_dims": (20, 10),
    "decoder_guidance_dims": (16, 8), "decoder_dims": (32, 16), "pad_len": 8,
}  # fmt: skip
FIELDS = {"grid": 4, "canvas": None, "aggregator": HEAD}


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    for name in "abc":
        labels = rng.integers(0, 3, (7, 9)).repeat(10, 0).repeat(10, 1).astype(np.uint8)
        pixels = (80 * labels[..., None] + rng.integers(0, 30, (70, 90, 3))).astype(np.uint8)
        labels[:7] = 255
        for kind, array in (("images", pixels), ("masks", labels)):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / f"{kind}/{name}.png")
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    return tmp_path


def test_trains_and_its_checkpoint_is_a_model(data, tmp_path, monkeypatch):
    cfg = config(data, steps=4)
    cfg.model = dict(
        type=CATSegSegmentor, tower=VIT, classes=["sky", "road: road | street", "tree"], fields=FIELDS
    )
    cfg.optim_wrapper.constructor = CATSegGroups
    cfg.optim_wrapper.clip_grad = dict(max_norm=0.01)
    cfg.custom_hooks = [dict(type=PlainCheckpoint, trained_only=False)]
    model = train(cfg, tmp_path / "run")
    before = torch.load(tmp_path / "run" / "iter_2.pth", weights_only=True)["state_dict"]
    after = torch.load(tmp_path / "run" / "iter_4.pth", weights_only=True)["state_dict"]
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    block = "segmenter.clip.text.transformer.resblocks.0"
    assert f"{block}.attn.v_proj_weight" in changed
    assert {f"{block}.attn.k_proj_weight", f"{block}.mlp.c_fc.weight"}.isdisjoint(changed)
    assert "segmenter.aggregator.decoder.head.weight" in changed

    predictor = trained_predictor(cfg, tmp_path / "run" / "iter_4.pth")
    assert predictor.vocabulary.names == ("sky", "road", "tree")
    image = predictor._view(np.asarray(Image.open(data / "images" / "a.png")))
    with torch.inference_mode():
        (pixels,) = image.batches()
        ours = predictor.model(predictor.model.fit(pixels), _bank(predictor))
        theirs = model.eval().segmenter.head(model.extract_feat(pixels), model.rows())
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    released = ovseg.load(predictor.save(tmp_path / "mine.safetensors"))
    with torch.inference_mode():
        torch.testing.assert_close(released.model(predictor.model.fit(pixels), _bank(predictor)), ours)


def _bank(predictor):
    from ovseg.vocab.text_bank import encode_vocabulary
    from ovseg.vocab.vocabulary import Vocabulary

    words = Vocabulary.of(["sky", "road", "tree"])
    clip = predictor._clip
    return encode_vocabulary(clip.model, clip.tokenizer, words, "cat_seg_single", average="keep")


def test_words_are_encoded_once_outside_training():
    model = CATSegSegmentor(VIT, ["a", "b"], fields=FIELDS)
    assert model.train().rows().requires_grad
    rows = model.eval().rows()
    assert rows is model.rows() and not rows.requires_grad
    assert model.train()._rows is None


def test_a_step_may_take_only_some_classes(monkeypatch):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    model = CATSegSegmentor(VIT, [f"word {k}" for k in range(9)], fields=FIELDS, classes_per_step=4).train()
    truth = torch.full((1, 64, 64), 255)
    truth[:, :30], truth[:, 30:40] = 7, 2
    sample = SegDataSample(gt_sem_seg=PixelData(data=truth))
    seen = []

    def loss(inputs, labels, rows):
        seen.append((labels, rows))
        return rows.sum()

    monkeypatch.setattr(model.segmenter, "loss", loss)
    model.loss(torch.randn(1, 3, 64, 64), [sample])
    labels, rows = seen[0]
    assert rows.shape == (4, 1, 32)
    torch.testing.assert_close(rows[:2], model.rows()[[2, 7]])
    assert torch.equal(labels == 1, truth == 7) and torch.equal(labels == 0, truth == 2)
    assert torch.equal(labels == 255, truth == 255)
