"""GEM's second stream against its definition, step by step."""

from __future__ import annotations

import pytest
import torch
from naive import grid

import ovseg
from ovseg.inference.steps import MinMax
from ovseg.methods.gem import GEM


def unit(z):
    return z / z.norm(dim=1, keepdim=True)


def grouped(z, v, strength, iterations):
    for _ in range(iterations):
        z = unit(z)
        z = (strength * z @ z.T).softmax(dim=1) @ z
    z = unit(z)
    return (strength * z @ z.T).softmax(dim=1) @ v


@pytest.mark.parametrize(("iterations", "temperature"), [(1, None), (0, None), (2, 5.0)])
@torch.no_grad()
def test_the_second_stream(iterations, temperature, tiny_clip):
    visual, images = tiny_clip.model.visual, torch.randn(2, 3, 48, 80)
    images[1] *= 5  # the adaptive temperature is each image's own
    fields = {"iterations": iterations, "temperature": temperature, "last_blocks": 2}
    ours = ovseg.build("gem", tiny_clip, **fields).model.features(images).patches
    for image, patches in zip(images, ours):
        plain = visual.blocks[0](visual.embed(image[None], "bicubic_antialias"))
        second = plain[0]
        for block in visual.blocks[1:]:
            normed = block.ln_1(plain)
            heads = [part[0] for part in block.attn.qkv(normed)]
            adaptive = normed[0].norm(dim=1).mean() / heads[0].shape[2] ** 0.5
            strength = adaptive if temperature is None else temperature
            mixed = [
                sum(grouped(z, v, strength, iterations) for z in (q, k, v)) / 3 for q, k, v in zip(*heads)
            ]
            second = second + block.attn.out_proj(torch.cat(mixed, dim=1))
            plain = block(plain)
        torch.testing.assert_close(patches[None], grid(second, visual, (3, 5)), atol=1e-5, rtol=1e-5)


def test_a_shallow_tower_takes_part_as_a_whole(tiny_clip):
    assert GEM().readout.last_blocks == 6
    assert ovseg.build("gem", tiny_clip).model.readout.last_blocks == len(tiny_clip.model.visual.blocks)
    assert ovseg.build("gem", tiny_clip, protocol="emoji", last_blocks=2).model.readout.last_blocks == 2


def test_heat_maps(tiny_clip, photo):
    predictor = ovseg.build("gem", tiny_clip, protocol="heatmaps")
    assert predictor.protocol.steps == (MinMax(),)
    result = predictor.segment(photo, ["cat", "dog"], class_scores=True)
    low, high = result.class_scores.min(axis=(1, 2)), result.class_scores.max(axis=(1, 2))
    assert low.tolist() == [0, 0]
    assert high.tolist() == [1, 1]
    assert result.class_scores.shape == (2, *photo.shape[:2])
