"""The whole model: views, prompts, checkpoints, and the predictor around it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import ovseg
from ovseg.dense.view import View
from ovseg.dense.windows import Pad, slide
from ovseg.evaluation.sets import open_set
from ovseg.methods.cat_seg import CATSeg
from ovseg.methods.cat_seg.aggregator import cost_volume
from ovseg.methods.cat_seg.config import AggregatorConfig
from ovseg.methods.cat_seg.converter import convert_model, to_published
from ovseg.towers.checkpoints import CheckpointError
from ovseg.towers.download import WeightsUnavailableError
from ovseg.towers.table import ASSETS
from ovseg.vocab.text_bank import TextBank
from ovseg.vocab.vocabulary import Vocabulary

HALF = (0.5, 0.5, 0.5)


def bank(classes):
    torch.manual_seed(2)
    names = [f"class {k}" for k in range(classes)]
    return TextBank(torch.randn(classes, 1, 32), False, torch.arange(classes), Vocabulary.of(names))


def resize(image, *size):
    return F.interpolate(image, size, mode="bilinear", align_corners=False)


@torch.no_grad()
def test_windows_and_the_whole_have_equal_say(make_model):
    """Probabilities of windows are averaged on the canvas, then with those of the whole, then resized."""
    model, rows, image = make_model(), bank(3), torch.rand(3, 120, 200)
    field = model.score_field(View(image, slide((120, 200)), (60, 90), HALF, HALF, batch_size=3), rows)

    def probabilities(crop):
        return resize(model(resize((crop - 0.5) / 0.5, 128, 128), rows), 96, 96).sigmoid()

    square = resize(image[None], 160, 160)
    total, count = torch.zeros(1, 3, 160, 160), torch.zeros(1, 1, 160, 160)
    for top in (0, 64):
        for left in (0, 64):
            window = (..., slice(top, top + 96), slice(left, left + 96))
            total[window] += probabilities(square[window])
            count[window] += 1
    whole = resize(probabilities(resize(image[None], 96, 96)), 160, 160)
    expected = resize((total / count + whole) / 2, 60, 90)[0]
    torch.testing.assert_close(field.full(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        field.tile(slice(7, 31), slice(50, 52)), expected[:, 7:31, 50:52], atol=1e-5, rtol=0
    )


@torch.no_grad()
def test_without_a_glance_windows_say_all(make_model):
    model, rows, image = make_model(glance=False), bank(2), torch.rand(3, 96, 96)
    view = View(image, slide((96, 96)), (40, 40), HALF, HALF)
    model.method = replace(model.method, canvas=96)  # one window
    normalised = (image[None] - 0.5) / 0.5
    expected = resize(resize(model(resize(normalised, 128, 128), rows), 96, 96).sigmoid(), 40, 40)[0]
    torch.testing.assert_close(model.score_field(view, rows).full(), expected, atol=1e-5, rtol=0)


def test_cosines_fade_in_training_only(make_model):
    model, rows, image = make_model(fading=0.6), bank(3).rows, torch.randn(2, 3, 64, 64)
    costs = []
    model.aggregator.embed.register_forward_pre_hook(lambda _, inputs: costs.append(inputs[0]))
    with torch.no_grad():
        features = model.features(image)
        for training in (False, True):
            model.train(training).head(features, rows)
    true, faded = torch.stack(costs).unflatten(0, (2, 2))  # (image, class, T, h, w)
    torch.testing.assert_close(true, cost_volume(features.patches, rows))
    share = (faded / true).flatten(2)
    assert (share.amax(2) - share.amin(2)).max() < 1e-4  # one for a class in an image
    assert len(share[..., 0].flatten().unique()) == 6 and share.min() >= 0.4 and share.max() <= 1


def test_sizes_of_the_head_may_come_as_json():
    sizes = {"width": 32, "decoder_dims": [32, 16]}
    assert CATSeg(aggregator=sizes).aggregator == AggregatorConfig(width=32, decoder_dims=(32, 16))


@torch.no_grad()
def test_whole_image_keeps_its_padding(make_model):
    model, rows, image = make_model(canvas=None), bank(3), torch.rand(3, 70, 90)
    view = View(image, slide((70, 90), pad=Pad(32, stretch=True)), (35, 45), HALF, HALF)
    padded = F.pad((image[None] - 0.5) / 0.5, (0, 6, 0, 26))
    expected = resize(model(resize(padded, 128, 128), rows).sigmoid(), 35, 45)[0]
    torch.testing.assert_close(model.score_field(view, rows).full(), expected, atol=1e-6, rtol=0)


@torch.no_grad()
def test_prompts_are_tokens_put_in_before_each_block_and_taken_out_after(make_model):
    model, image = make_model(prompts=3), torch.randn(2, 3, 64, 64)
    features = model.features(image)
    visual = model.clip.visual
    *blocks, last = visual.blocks
    x = visual.embed(image, "bicubic")
    for block in blocks:
        tokens = block.attn.prompt.expand(len(x), -1, -1)
        both = torch.cat([x[:, :1], tokens, x[:, 1:]], dim=1)
        q, k, v = type(block.attn).__mro__[1].qkv(block.attn, block.ln_1(both))
        both = both + block.attn.project(F.scaled_dot_product_attention(q, k, v))
        both = both + block.feed_forward(both)
        x = torch.cat([both[:, :1], both[:, 4:]], dim=1)
    v = last.attn.project(last.attn.qkv(last.ln_1(x), "v")[2]) + x[:, :1]
    expected = visual.tail(v + last.feed_forward(v))[:, 1:]
    torch.testing.assert_close(features.patches.flatten(2).transpose(1, 2), expected, atol=1e-5, rtol=1e-5)


def test_the_reference_takes_only_the_first_word_of_a_class(tiny_clip, photo):
    with pytest.warns(UserWarning, match=r"head is untrained here.*cat_seg_vit_b16.coco_stuff"):
        predictor = ovseg.build("cat_seg", tiny_clip, protocol="ade150", grid=8)
    words = ["cabinet: cabinet | cupboard", "cat"]
    result = predictor.segment(photo, words, class_scores=True)
    assert result.vocabulary.classes[0].words == ("cabinet", "cupboard")
    alone = predictor.segment(photo, ["cabinet", "cat"], class_scores=True)
    assert (result.class_scores == alone.class_scores).all()


def test_other_classes_of_voc20b_are_class_20(tiny_clip, photo):
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="untrained"):
        predictor = ovseg.build("cat_seg", tiny_clip, protocol="voc20b", grid=8)
    labels = predictor.segment(photo, class_scores=True)
    first = labels.class_scores[:20].max(0).astype(float)
    other = labels.class_scores[20:].max(0).astype(float)
    assert (labels.label_map[other > first + 2e-3] == 20).all()
    assert (labels.label_map[first > other + 2e-3] < 20).all()
    assert labels.label_map.min() >= 0 and labels.label_map.max() == 20


@pytest.fixture
def published(make_model):
    """A model with the published sizes of the head, but a tiny CLIP, in the authors' layout."""
    model = make_model(aggregator=AggregatorConfig(embed_dim=32))
    return model, to_published(model.state_dict(), (24, 24), 12)


def test_published_checkpoints_convert_both_ways(published):
    model, state_dict = published
    stem = "sem_seg_head.predictor.clip_model."
    assert state_dict[f"{stem}transformer.resblocks.1.attn.q_proj_weight"].shape == (32, 32)
    assert state_dict[f"{stem}visual.transformer.resblocks.0.attn.in_proj_bias"].shape == (192,)
    assert state_dict["upsample2.weight"].shape == (64, 128, 4, 4)
    back = convert_model(state_dict)
    assert set(back) == set(model.state_dict())
    assert all(torch.equal(back[name], value) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match=r"'backbone.weight' is no part of CAT-Seg"):
        convert_model({**state_dict, "backbone.weight": torch.zeros(1)})


def test_a_published_file_is_loaded_whole(published, tmp_path, photo):
    model, state_dict = published
    path = tmp_path / "model_tiny.pth"
    torch.save({"model": state_dict, "iteration": 80000}, path)
    predictor = ovseg.build("cat_seg", path, grid=8)
    loaded = predictor.model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in model.state_dict().items())
    assert predictor.segment(photo, ["cat", "dog"]).size == photo.shape[:2]
    save_file(model.state_dict(), tmp_path / "own.safetensors")
    again = ovseg.build("cat_seg", tmp_path / "own.safetensors", grid=8).model.state_dict()
    assert all(torch.equal(again[name], value) for name, value in loaded.items())


def test_a_file_that_does_not_fit_is_refused(published, tmp_path):
    _, state_dict = published
    del state_dict["upsample1.bias"]
    torch.save({"model": state_dict}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"1 tensors missing \(upsample.0.bias\)"):
        ovseg.build("cat_seg", tmp_path / "model.pth")


def test_weights_that_are_not_here(monkeypatch):
    monkeypatch.setenv("OVSEG_OFFLINE", "1")
    with pytest.raises(WeightsUnavailableError, match=r"CAT-Seg-weights/resolve/main/model_base.pth where"):
        ovseg.load("cat_seg_vit_b16.coco_stuff", protocol="ade150")


def test_resnets_are_refused():
    from ovseg.methods.cat_seg import CATSeg
    from ovseg.towers.clip import CLIP, architecture

    vision = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}
    text = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
    clip = CLIP(architecture({"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}))
    with pytest.raises(ValueError, match="choose a vit"):
        CATSeg().build(clip, CATSeg().readout)


def test_the_embedded_model_finds_what_is_in_a_scene_by_an_unseen_artist():
    data = open_set(str(ASSETS / "emoji_test" / "base"))
    truth = data.truth(1)
    present = sorted(set(truth[truth >= 0].tolist()))
    predictor = ovseg.load("cat_seg_vit_tiny.emoji", device="cpu")
    found = predictor.segment(data.image(1), [data.classes[k] for k in present], background="none").label_map
    labels = np.array(present)[found]
    ious = [((labels == k) & (truth == k)).sum() / ((labels == k) | (truth == k)).sum() for k in present]
    assert np.mean(ious) > 0.5
