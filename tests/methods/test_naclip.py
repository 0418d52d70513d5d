"""NACLIP and its ablations against a block by hand."""

from __future__ import annotations

import math

import pytest
import torch
from naive import grid, last_block_parts, mix, soft

import ovseg
from ovseg.inference.steps import Floor, Pamr, Softmax
from ovseg.methods.naclip import NACLIP


def bias(h, w, std):
    """(N, N) by its definition, pair by pair."""
    out = torch.zeros(1 + h * w, 1 + h * w)
    for i in range(h * w):
        for j in range(h * w):
            squared = (i // w - j // w) ** 2 + (i % w - j % w) ** 2
            out[1 + i, 1 + j] = math.exp(-squared / (2 * std**2))
    return out


@torch.no_grad()
def test_near_keys_without_residual_and_mlp(tiny_clip):
    visual, image = tiny_clip.model.visual, torch.randn(3, 48, 80)
    _, (_, k, v) = last_block_parts(visual, image, "bicubic_offset")
    near = bias(3, 5, 2.0)
    x = mix(visual, [(a @ a.T / a.shape[1] ** 0.5 + near).softmax(dim=1) for a in k], v)
    model = ovseg.build("naclip", tiny_clip, gaussian_std=2.0).model
    torch.testing.assert_close(
        model.features(image[None]).patches, grid(x, visual, (3, 5)), atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_neighbours_only_is_scaled_image_by_image(tiny_clip):
    visual, images = (
        tiny_clip.model.visual,
        torch.randn(2, 3, 48, 80) * torch.tensor([1.0, 9.0]).view(2, 1, 1, 1),
    )
    model = ovseg.build("naclip", tiny_clip, neighbours_only=True).model
    patches = model.features(images).patches
    for image, ours in zip(images, patches):
        _, (q, k, v) = last_block_parts(visual, image, "bicubic_offset")
        pairs = torch.stack([a.norm(dim=1)[:, None] * b.norm(dim=1) for a, b in zip(q, k)])
        weights = (pairs.mean() / q[0].shape[1] ** 0.5 * bias(3, 5, 5.0)).softmax(dim=1)
        x = mix(visual, [weights] * len(v), v)
        torch.testing.assert_close(ours[None], grid(x, visual, (3, 5)), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_very_wide_gaussian_is_plain_key_key_among_patches(tiny_clip):
    visual, image = tiny_clip.model.visual, torch.randn(3, 48, 80)
    _, (_, k, _) = last_block_parts(visual, image, "bicubic_offset")
    weights = (k[0] @ k[0].T / k[0].shape[1] ** 0.5 + bias(3, 5, 1e4)).softmax(dim=1)
    plain = soft(k[0], k[0])
    ratio = weights[1:, 1:] / weights[1:, 1:].sum(dim=1, keepdim=True)
    torch.testing.assert_close(ratio, plain[1:, 1:] / plain[1:, 1:].sum(dim=1, keepdim=True))
    torch.testing.assert_close(weights[0], plain[0])


def test_a_gaussian_needs_a_width():
    with pytest.raises(ValueError, match="for none: affinity='key_key'"):
        NACLIP(gaussian_std=0.0)


def test_the_paper_protocols():
    voc = NACLIP.protocols["voc21"]
    assert voc.steps == (Pamr(10, (8, 16)), Softmax(40.0), Floor(0.1, label=0))
    assert voc.crop is None
    assert NACLIP.protocols["voc21_no_pamr"].steps == voc.steps[1:]
    assert NACLIP.protocols["context60"].crop == 224
    assert len(NACLIP.protocols) == 3 + 16
    assert all(
        NACLIP.protocols[name].paper for name in NACLIP.protocols if "emoji" not in name and name != "default"
    )
