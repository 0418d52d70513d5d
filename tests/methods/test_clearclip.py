"""ClearCLIP and its variants against a block by hand."""

from __future__ import annotations

import pytest
import torch
from naive import grid, last_block_parts, mix, soft

import ovseg
from ovseg.inference.steps import Floor, Softmax
from ovseg.methods.clearclip import ClearCLIP

WEIGHTS = {
    "query_query": lambda q, k: soft(q, q),
    "query_key": soft,
    "identity": lambda q, k: torch.eye(len(q)),
    "correlative": lambda q, k: soft(q, q) + soft(k, k),
}


@pytest.mark.parametrize("affinity", WEIGHTS)
@pytest.mark.parametrize("keep", [False, True])
@torch.no_grad()
def test_variants(affinity, keep, tiny_clip):
    visual, image = tiny_clip.model.visual, torch.randn(3, 48, 80)
    tokens, (q, k, v) = last_block_parts(visual, image, "bicubic_offset")
    x = mix(visual, [WEIGHTS[affinity](a, b) for a, b in zip(q, k)], v)
    if keep:
        x = x + tokens
        x = x + visual.blocks[-1].mlp(visual.blocks[-1].ln_2(x))
    fields = {"residual": "own", "mlp": True} if keep else {}
    model = ovseg.build("clearclip", tiny_clip, affinity=affinity, **fields).model
    torch.testing.assert_close(
        model.features(image[None]).patches, grid(x, visual, (3, 5)), atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_blocks_are_summed_while_the_plain_path_goes_on(tiny_clip):
    visual, image = tiny_clip.model.visual, torch.randn(3, 48, 80)
    _, (q, _, v) = last_block_parts(visual, image, "bicubic_offset")
    last = mix(visual, [soft(a, a) for a in q], v)
    tokens = visual.blocks[0](visual.embed(image[None], "bicubic_offset"))
    block = visual.blocks[1]
    q, _, v = block.attn.qkv(block.ln_1(tokens))
    before = block.attn.project(torch.nn.functional.scaled_dot_product_attention(q, q, v))[0]
    model = ovseg.build("clearclip", tiny_clip, last_blocks=2).model
    expected = grid(last + before, visual, (3, 5))
    torch.testing.assert_close(model.features(image[None]).patches, expected, atol=1e-5, rtol=1e-5)


def test_the_paper_protocols():
    voc = ClearCLIP.protocols["voc21"]
    assert voc.steps == (Softmax(50.0), Floor(0.5, label=0))
    assert (voc.resize.short, voc.crop, voc.stride, voc.words) == (448, 448, 224, "voc21.clearclip")
    assert (voc.pad.multiple, voc.pad.side) == (16, "centre")
    assert ClearCLIP.protocols["cityscapes"].stride == 224
    assert ClearCLIP.protocols["ade150"].paper["vit_b16.laion2b"] == 18.9
