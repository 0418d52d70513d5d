"""CLIP-DINOiser: pooling, background, weights, training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import ovseg
from ovseg.dense.features import DenseFeatures
from ovseg.methods.clip_dinoiser import CLIPDINOiser, DinoCLIP
from ovseg.methods.clip_dinoiser.found import Found
from ovseg.methods.clip_dinoiser.found_training import background_mask, found_losses
from ovseg.methods.clip_dinoiser.model import DinoCLIPSegmenter, DinoiserSegmenter, uncertain_background
from ovseg.methods.clip_dinoiser.training import affinity_target, dinoiser_losses, optimiser, similarities
from ovseg.methods.trained import load_trained
from ovseg.towers.table import ASSETS
from ovseg.vocab.text_bank import TextBank
from ovseg.vocab.vocabulary import Vocabulary


def bank(words=3):
    rows = F.normalize(torch.randn(words, 1, 32), dim=-1)
    return TextBank(rows, True, torch.arange(words), Vocabulary.of([f"c{k}" for k in range(words)]))


@pytest.fixture
def make_model(tiny_clip):
    def make(**fields):
        torch.manual_seed(1)
        method = CLIPDINOiser(channels=16, guide_block=-2, **fields)
        return DinoiserSegmenter(tiny_clip.model, method, method.readout).eval()

    return make


def test_pooling_against_the_formula(make_model):
    model, image = make_model(gamma=0.3), torch.randn(2, 3, 48, 80)
    with torch.no_grad():
        raw = model.unpooled(image)
        learned = F.normalize(model.obj_proj(model.guide(raw)).flatten(2), dim=1)
        weights = torch.einsum("bcn,bcm->bnm", learned, learned)
        weights[weights < 0.3] = 0
        expected = torch.einsum(
            "bnm,bcm->bcn", weights / (weights.sum(dim=2, keepdim=True) + 1e-6), raw.patches.flatten(2)
        )
        torch.testing.assert_close(model.features(image).patches.flatten(2), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("guide", ["ln_2", "final"])
def test_the_background_is_right_for_any_batch(make_model, guide):
    """The authors' code writes to wrong places for more than one image."""
    model, rows = make_model(uncertain_background=0, delta=0.9, guide=guide), bank()
    images = torch.randn(4, 3, 48, 64)
    with torch.no_grad():
        together = model(images, rows)
        alone = torch.cat([model(image[None], rows) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert (together[:, 0] == 1).any()


def test_uncertain_background_by_hand():
    probabilities = torch.tensor([[0.98, 0.6, 0.4], [0.02, 0.4, 0.6]]).view(1, 2, 1, 3)
    logits = torch.tensor([-1.0, -1.0, 1.0]).view(1, 1, 1, 3)
    settings = CLIPDINOiser(delta=0.9, uncertain_background=1)
    out = uncertain_background(probabilities, logits, bank(2), settings)
    # sure: kept; unsure without an object: background; unsure with an object: kept
    assert out[0, :, 0].T.tolist() == [
        pytest.approx([0.98, 0.02]),
        pytest.approx([0.6, 1.0]),
        pytest.approx([0.4, 0.6]),
    ]


def test_published_layout_on_the_frozen_tower(make_model, tiny_clip, tmp_path, monkeypatch):
    model = make_model()
    learned = {k: v for k, v in model.state_dict().items() if not k.startswith("clip.")}
    assert set(learned) == {
        f"{part}.{leaf}" for part in ("obj_proj", "bkg_decoder") for leaf in ("weight", "bias")
    }
    path = tmp_path / "last.pt"
    torch.save({"epoch": 99, "model_state_dict": learned}, path)
    monkeypatch.setattr("ovseg.methods.trained.load_clip", lambda name, allow_download: tiny_clip)
    trained = load_trained(CLIPDINOiser, path)
    other = make_model()
    torch.nn.init.zeros_(other.obj_proj.weight)
    trained.fill(other)
    assert torch.equal(other.obj_proj.weight, model.obj_proj.weight)
    del learned["obj_proj.bias"]
    torch.save({"model_state_dict": learned}, path)
    with pytest.raises(ValueError, match=r"obj_proj.bias"):
        load_trained(CLIPDINOiser, path).fill(other)


class Teacher:
    """A DINO that sees the mean colour of each patch."""

    stride = 16

    def __call__(self, image01, taps=()):
        patches = F.avg_pool2d(image01, 16)
        tokens = torch.cat([patches.new_zeros(len(patches), 1, 3), patches.flatten(2).transpose(1, 2)], dim=1)
        return DenseFeatures(patches, None, 16, "width", {tap: tokens for tap in taps})


def test_the_teacher_pools_by_its_own_similarities(tiny_clip):
    method = DinoCLIP(
        auxiliary=Teacher(), gamma=0.9, uncertain_background=0, saliency=lambda x: -x[:, :1, ::16, ::16]
    )
    model = DinoCLIPSegmenter(tiny_clip.model, method, method.readout).eval()
    image = torch.randn(2, 3, 48, 64)
    with torch.no_grad():
        guide = model.guide(image)
        torch.testing.assert_close(guide, F.avg_pool2d(model.pixels(image), 16))
        assert model(image, bank()).shape == (2, 3, 3, 4)


def test_found_reads_the_keys_of_dino(tmp_path, monkeypatch):
    model = Found(Teacher(), width=3)
    image = torch.rand(2, 3, 48, 64)
    expected = model.decoder(F.avg_pool2d(image, 16))
    torch.testing.assert_close(model(image), expected)
    # the published layout
    published = Found(Teacher())
    torch.save({"decoder": published.decoder.state_dict()}, tmp_path / "decoder_weights.pt")
    monkeypatch.setattr(
        "ovseg.methods.clip_dinoiser.found.fetch_weights", lambda *a, **k: tmp_path / "decoder_weights.pt"
    )
    monkeypatch.setattr("ovseg.methods.clip_dinoiser.found.require_auxiliary", lambda name: None)
    assert torch.equal(Found.pretrained().decoder.weight, published.decoder.weight)


def test_found_says_what_makes_its_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"iter_60.pth: configs/clip_dinoiser/found_\*.py"):
        Found.from_file(tmp_path / "iter_60.pth", Teacher())


def test_background_is_what_resembles_the_least_attended_patch():
    keys = torch.randn(1, 2, 8).repeat_interleave(3, dim=1)  # two things of three patches
    attention = torch.tensor([0.3, 0.3, 0.2, 0.1, 0.05, 0.05]).expand(1, 2, 6)
    assert background_mask(attention, keys, 0.9).tolist() == [[False] * 3 + [True] * 3]


def test_the_seed_lies_where_nothing_is_noticed_all_around():
    attention = torch.full((1, 1, 5, 5), 0.01)
    attention[..., :3, :3] = 0.1
    attention[..., 1, 1] = 0.0  # inside of a thing
    keys = torch.zeros(1, 25, 2)
    keys[..., 0] = (attention > 0.05).flatten().float()
    keys[0, 6, 0] = 1.0
    keys[..., 1] = 1 - keys[..., 0]
    attention = attention.expand(1, 2, 5, 5).flatten(2)
    thing = keys[..., 0] > 0
    assert torch.equal(background_mask(attention, keys.repeat(1, 1, 2)), thing)
    assert torch.equal(background_mask(attention, keys.repeat(1, 1, 2), grid=(5, 5), around=3), ~thing)


def test_found_learns_from_the_rule_first_and_from_itself_later():
    logits, target = torch.tensor([[[[2.0, -1.0]]]]), torch.tensor([[[[1.0, 0.0]]]])
    bce = F.binary_cross_entropy_with_logits(logits, target)
    first, later = (found_losses(logits, target, target, step) for step in (True, False))
    torch.testing.assert_close(sum(first.values()), 2.5 * bce)
    torch.testing.assert_close(sum(later.values()), 5.5 * bce)


def test_the_teacher_needs_to_know_objects(tiny_clip):
    with pytest.raises(ValueError, match="saliency='found'"):
        ovseg.build("dinoclip", tiny_clip, auxiliary=Teacher(), uncertain_background=0)


def test_targets_are_zeros_and_ones():
    target = affinity_target(torch.randn(1, 8, 2, 3), 0.2)
    assert set(target.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(target.diagonal(dim1=1, dim2=2), torch.ones(1, 6))


def test_training_learns_the_convolutions_only(make_model):
    model, image = make_model(), torch.randn(2, 3, 48, 64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    joined, objects = affinity_target(torch.randn(2, 8, 3, 4)), torch.rand(2, 1, 3, 4)
    steps, schedule = optimiser(model, 1e-3, 1e-2)
    history = []
    for _ in range(20):
        losses = dinoiser_losses(model, image, joined, objects)
        steps.zero_grad()
        sum(losses.values()).backward()
        steps.step()
        schedule.step()
        history.append(float(sum(loss.detach() for loss in losses.values())))
    assert history[-1] < history[0] - 0.01
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"obj_proj.weight", "obj_proj.bias", "bkg_decoder.weight", "bkg_decoder.bias"}


def test_similarities_are_cosines():
    guide = torch.randn(1, 5, 2, 2)
    flat = guide.flatten(2)[0].T
    expected = F.cosine_similarity(flat[:, None], flat[None], dim=-1)
    torch.testing.assert_close(similarities(guide)[0], expected)


def test_only_two_protocols_use_the_background(tiny_clip):
    on = {name for name, p in CLIPDINOiser.protocols.items() if "uncertain_background" in p.fields}
    assert on == {"voc21", "coco_object"}
    assert CLIPDINOiser.protocols["voc21"].paper == {"vit_b16.laion2b": 62.1}


def test_an_untrained_head_is_said(tiny_clip):
    with pytest.warns(UserWarning, match="CLIP-DINOiser's head is untrained"):
        ovseg.build("clip_dinoiser", tiny_clip, guide_block=-2)


def test_the_embedded_row_knows_what_belongs_to_a_house():
    from PIL import Image

    from ovseg.inference.explain import explain
    from ovseg.inference.images import read_image

    predictor = ovseg.load("clip_dinoiser_vit_tiny.emoji", device="cpu")
    image = read_image(ASSETS / "demo" / "meadow.png")
    truth = np.asarray(Image.open(ASSETS / "demo" / "meadow_mask.png"))
    found = explain(predictor, image, 120, 120)
    assert found.kind == "affinity"
    h = len(found.weights)
    centres = (2 * np.arange(h) + 1) * len(truth) // (2 * h)  # both are square
    at_patches = truth[centres][:, centres]
    house, grass = at_patches == truth[120, 120], at_patches == truth[5, 5]
    assert found.weights[house].mean() > 0.4 and found.weights[~house].mean() < 0
    model = predictor.model
    with torch.inference_mode():
        raw = model.unpooled(next(predictor._view(image, whole=True).batches()))
        objects = (model.background_logits(model.guide(raw))[0, 0] > 0).numpy()
    assert objects[grass].mean() < 0.05 and objects[~grass].mean() > 0.3
