from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import ovseg
from ovseg.dense import operators
from ovseg.dense.features import DenseFeatures
from ovseg.dense.readout import AttentionContext
from ovseg.dense.view import View
from ovseg.dense.windows import Pad, slide
from ovseg.methods.proxyclip import ProxyAttention, mean_similarity
from ovseg.towers import auxiliary
from ovseg.towers.download import WeightsUnavailableError
from ovseg.vocab.text_bank import TextBank
from ovseg.vocab.vocabulary import Vocabulary


class Spy:
    """An auxiliary tower that keeps what it is shown; patches of 8 pixels."""

    stride = 8

    def __init__(self):
        self.seen = []

    def __call__(self, image01, taps=()):
        self.seen.append(image01)
        maps = F.avg_pool2d(image01, 8) + 0.1 * torch.randn(1, 3, 1, 1)
        return DenseFeatures(maps, None, 8, "width")


def attend(features, v, grid, **settings):
    ctx = AttentionContext(grid, 1.0, 1, extra={"features": features})
    return ProxyAttention(**settings)(None, None, v, ctx)


def naive(features, v, grid, beta=1.2, gamma=3.0):
    """One image and one head after the other, whole matrices."""
    out = torch.empty(*v.shape[:2], features.shape[2] * features.shape[3], v.shape[3])
    for b in range(len(v)):
        unit = F.normalize(features[b], dim=0).flatten(1)
        similarity = unit.T @ unit
        logits = (similarity - beta * similarity.mean()) * gamma
        logits[logits < 0] = -torch.inf
        for h in range(v.shape[1]):
            values = v[b, h, 1:].T.reshape(1, -1, *grid)
            values = F.interpolate(values, features.shape[2:], mode="bilinear", align_corners=False)
            out[b, h] = logits.softmax(-1) @ values[0].flatten(1).T
    return out


@pytest.mark.parametrize("elements", [1, 200, 1 << 20])
def test_attention_equals_the_naive_one_on_any_grid(elements, monkeypatch):
    monkeypatch.setattr(operators, "_BLOCK_ELEMENTS", elements)
    torch.manual_seed(0)
    features, v = torch.randn(2, 6, 5, 8), torch.randn(2, 3, 1 + 3 * 4, 7)
    mixed, grid = attend(features, v, (3, 4))
    assert grid == (5, 8)
    torch.testing.assert_close(mixed, naive(features, v, (3, 4)), atol=1e-5, rtol=1e-5)


def test_a_homogeneous_window_keeps_its_values():
    """Where the mean similarity is over 1 / beta, nothing is above it; the authors' code gives NaN."""
    v = torch.randn(1, 2, 1 + 6, 4)
    mixed, _ = attend(torch.ones(1, 5, 2, 3), v, (2, 3))
    torch.testing.assert_close(mixed, v[:, :, 1:])


def test_positions_attend_within_their_group():
    features = torch.zeros(1, 2, 1, 4)
    features[0, 0, 0, :2] = features[0, 1, 0, 2:] = 1.0
    v = torch.tensor([9.0, 1.0, 3.0, 10.0, 20.0]).view(1, 1, 5, 1)
    mixed, _ = attend(features, v, (1, 4))
    assert mixed.flatten().tolist() == pytest.approx([2.0, 2.0, 15.0, 15.0])


def test_mean_similarity_needs_no_matrix():
    features = torch.randn(3, 6, 4, 5)
    unit = F.normalize(features.flatten(2), dim=1)
    expected = (unit.transpose(1, 2) @ unit).mean(dim=(1, 2))
    torch.testing.assert_close(mean_similarity(features), expected)


def test_the_mean_over_the_batch_is_a_quirk_with_a_name():
    torch.manual_seed(0)
    features, v = torch.randn(2, 6, 4, 4), torch.randn(2, 2, 17, 4)
    features[1] += 1.0
    alone = attend(features[:1], v[:1], (4, 4))[0]
    assert torch.equal(attend(features, v, (4, 4))[0][:1], alone)
    assert not torch.allclose(attend(features, v, (4, 4), mean_over="batch")[0][:1], alone)


def test_swapped_grids_only_harm_other_than_square_images():
    features, v = torch.randn(1, 6, 4, 4), torch.randn(1, 2, 17, 4)
    assert torch.equal(attend(features, v, (4, 4))[0], attend(features, v, (4, 4), swap_grid=True)[0])
    features, v = torch.randn(1, 6, 2, 8), torch.randn(1, 2, 17, 4)
    assert not torch.allclose(attend(features, v, (2, 8))[0], attend(features, v, (2, 8), swap_grid=True)[0])


def bank():
    rows = F.normalize(torch.randn(2, 1, 32), dim=-1)
    return TextBank(rows, True, torch.arange(2), Vocabulary.of(["a", "b"]))


def test_the_auxiliary_tower_sees_each_window_as_pixels(tiny_clip):
    spy, shared = Spy(), tiny_clip.model
    info = replace(tiny_clip.info, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))  # comes with the weights
    clip = replace(tiny_clip, model=shared.with_config(shared.config), info=info)
    predictor = ovseg.build("proxyclip", clip, auxiliary=spy)
    view = View(
        torch.rand(3, 48, 60), slide((48, 60), 48, 24, Pad(56, "centre")), (48, 60), info.mean, info.std, 4
    )
    field = predictor.model.score_field(view, bank())
    assert field.full().shape == (2, 48, 60)
    shown = spy.seen[0]
    assert shown.shape == (2, 3, 56, 56)
    torch.testing.assert_close(shown[0, :, 4:52, 4:52], view.image[:, :, :48], atol=1e-6, rtol=0)
    torch.testing.assert_close(shown[1, :, 4:52, 4:52], view.image[:, :, 12:], atol=1e-6, rtol=0)
    torch.testing.assert_close(shown[0, :, 0, 0], torch.tensor(info.mean))


def test_features_lie_on_the_grid_of_the_auxiliary_tower(tiny_clip):
    model = ovseg.build("proxyclip", tiny_clip, auxiliary=Spy()).model
    features = model.features(torch.randn(1, 3, 64, 96))
    assert (features.grid, features.stride, features.cls) == ((8, 12), 8, None)


@pytest.mark.parametrize("auxiliary", ["dino_vit_s16", "dinov2_vit_b14_reg", "mae_vit_b16", "sam_vit_b"])
def test_every_family_of_towers_serves(auxiliary, tiny_clip):
    model = ovseg.build("proxyclip", tiny_clip, auxiliary=auxiliary).model
    scores = model(torch.randn(2, 3, 48, 80), bank())
    assert scores.shape[2:] == ((4, 4) if auxiliary == "sam_vit_b" else (3, 5))
    assert scores.isfinite().all()


def test_the_auxiliary_tower_is_shared_and_no_part_of_the_model(tiny_clip):
    models = [ovseg.build("proxyclip", tiny_clip).model for _ in range(2)]
    image = torch.randn(1, 3, 32, 32)
    assert models[0].auxiliary(image) is models[1].auxiliary(image)
    assert all(name.startswith("clip.") for name in models[0].state_dict())


def test_missing_weights_show_when_the_model_is_built(tiny_clip, monkeypatch):
    monkeypatch.setattr(auxiliary, "_builders", {})
    monkeypatch.setenv("OVSEG_OFFLINE", "1")
    with pytest.raises(WeightsUnavailableError, match="dino_vit_b8"):
        ovseg.build("proxyclip", tiny_clip)
    with pytest.raises(ValueError, match="'dino_vit_b9'; near: dino_vit_b8"):
        ovseg.build("proxyclip", tiny_clip, auxiliary="dino_vit_b9")


def test_settings_are_checked(tiny_clip):
    with pytest.raises(ValueError, match="gamma must be positive"):
        ovseg.build("proxyclip", tiny_clip, gamma=0)
    with pytest.raises(ValueError, match="mean_over must be"):
        ovseg.build("proxyclip", tiny_clip, mean_over="windows")
