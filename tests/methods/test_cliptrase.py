"""CLIPtrase against a block by hand, and its vote."""

from __future__ import annotations

import pytest
import torch
from naive import grid, last_block_parts, mix, soft

import ovseg
from ovseg.inference.steps import RegionVote
from ovseg.methods.cliptrase import CLIPtrase
from ovseg.methods.cliptrase.model import patch_affinity, self_correlation


@torch.no_grad()
def test_the_sum_of_three_attentions_with_residual_and_mlp(tiny_clip):
    visual, image = tiny_clip.model.visual, torch.randn(3, 48, 80)
    tokens, (q, k, v) = last_block_parts(visual, image, "bicubic_offset")
    weights = [soft(a, a) + soft(b, b) + soft(c, c) for a, b, c in zip(q, k, v)]
    x = tokens + mix(visual, weights, v)
    x = x + visual.blocks[-1].mlp(visual.blocks[-1].ln_2(x))
    patches = ovseg.build("cliptrase", tiny_clip).model.features(image[None]).patches
    torch.testing.assert_close(patches, grid(x, visual, (3, 5)), atol=1e-5, rtol=1e-5)


def test_correlation_head_by_head():
    parts = [torch.randn(2, 6, 8) for _ in range(3)]
    expected = torch.zeros(2, 6, 6)
    for part in parts:
        for head in part.split(4, dim=2):
            expected += torch.nn.functional.cosine_similarity(head[:, :, None], head[:, None], dim=3) / 6
    correlation = self_correlation(parts, 2)
    torch.testing.assert_close(correlation, expected, atol=1e-6, rtol=1e-5)
    affinity = patch_affinity(correlation[0])
    assert affinity[2, 3] == max(float(correlation[0, 3, 4] - correlation[0, 0, 4]), 0)


def test_neighbourhoods_follow_the_number_of_patches():
    method = CLIPtrase()
    assert method.neighbourhood(14 * 14) == (0.7, 3)
    eps, samples = method.neighbourhood(21 * 21)  # the authors chose 1.1 and 7
    assert eps == pytest.approx(1.05)
    assert samples == 7
    assert CLIPtrase(eps=1.1, min_samples=2).neighbourhood(1000) == (1.1, 2)
    assert method.neighbourhood(1)[1] == 1


@torch.inference_mode()
def test_each_region_has_one_label(tiny_clip, photo):
    predictor = ovseg.build("cliptrase", tiny_clip, eps=1.5, min_samples=2)
    field = predictor.model.score_field(
        predictor._view(photo), predictor._planner.bank(ovseg.Vocabulary.of(list("abcdef")))
    )
    assert field.regions.shape == photo.shape[:2]
    assert field.regions.max() >= 0
    result = predictor.segment(photo, list("abcdef"), background="none")
    for region in field.regions.unique():
        assert len(set(result.label_map[field.regions == region].tolist())) == 1


@torch.inference_mode()
def test_scores_may_be_weighted_by_the_class_token(tiny_clip, photo):
    plain, weighted = (ovseg.build("cliptrase", tiny_clip, cls_weighting=on).model for on in (False, True))
    bank = ovseg.build("cliptrase", tiny_clip)._planner.bank(ovseg.Vocabulary.of(["a", "b"]))
    image = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        factor = weighted(image, bank) / plain(image, bank)
        cls = plain.features(image).cls
    cosine = torch.nn.functional.normalize(cls, dim=1) @ bank.matrix.T
    torch.testing.assert_close(factor, cosine[:, :, None, None].expand_as(factor), atol=1e-4, rtol=1e-3)


def test_windows_cannot_vote(tiny_clip, photo):
    windows = CLIPtrase.protocols["default"]
    windows = ovseg.build(
        "cliptrase", tiny_clip, protocol=type(windows)("w", windows.resize, 64, 32, steps=windows.steps)
    )
    with pytest.raises(ValueError, match="the image as one window"):
        windows.segment(photo, ["a"])


def test_the_paper_protocols():
    large, small = CLIPtrase.protocols["voc21"], CLIPtrase.protocols["voc21_224"]
    assert large.fields == {"eps": 1.1, "min_samples": 7}
    assert small.fields == {"eps": 0.7, "min_samples": 3}
    assert (large.paper, small.paper) == ({"vit_b16.openai": 53.04}, {"vit_b16.openai": 50.88})
    assert CLIPtrase.protocols["voc20"].fields["cls_weighting"]
    assert all(RegionVote() in protocol.steps for protocol in CLIPtrase.protocols.values())
