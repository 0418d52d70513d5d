"""SCLIP against a block by hand."""

from __future__ import annotations

import torch
from naive import grid, last_block_parts, mix, soft

import ovseg
from ovseg.inference.steps import Floor, SmallAreas, Softmax
from ovseg.methods.sclip import SCLIP


@torch.no_grad()
def test_correlative_attention_with_residual_and_mlp(tiny_clip):
    visual, image = tiny_clip.model.visual, torch.randn(3, 48, 80)
    tokens, (q, k, v) = last_block_parts(visual, image, "bicubic_offset")
    weights = [soft(a, a) + soft(b, b) for a, b in zip(q, k)]
    assert all(torch.allclose(w.sum(dim=1), torch.tensor(2.0)) for w in weights)
    x = tokens + mix(visual, weights, v)
    x = x + visual.blocks[-1].mlp(visual.blocks[-1].ln_2(x))
    patches = ovseg.build("sclip", tiny_clip).model.features(image[None]).patches
    torch.testing.assert_close(patches, grid(x, visual, (3, 5)), atol=1e-5, rtol=1e-5)


def test_the_paper_protocols():
    voc = SCLIP.protocols["voc21"]
    assert voc.steps == (Softmax(65.0), SmallAreas(0.1), Floor(0.1, label=0))
    assert (voc.resize.short, voc.crop, voc.stride, voc.words) == (336, 224, 112, "voc21.sclip")
    assert voc.paper == {"vit_b16.openai": 59.63, "vit_l14.openai": 44.4}
    assert SCLIP.protocols["cityscapes"].resize.short == 560
    assert SCLIP.protocols["ade150"].steps == (Softmax(40.0),)
