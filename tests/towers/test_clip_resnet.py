"""CLIP's ResNet beyond the plain embedding: regions, other grids, every position, values."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from open_clip_models import cut_config, reference
from torchvision.ops import roi_align

from ovseg.dense.pos_embed import resize_pos_embed
from ovseg.towers.clip import CLIP, architecture
from ovseg.towers.converters import convert_open_clip

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def models():
    cfg = cut_config("RN50")
    cfg["vision_cfg"] |= {"width": 16, "image_size": 96, "head_width": 64}
    theirs = reference(cfg)
    ours = CLIP(architecture(cfg)).eval()
    ours.load_state_dict(convert_open_clip(theirs.state_dict()))
    return theirs.visual, ours.visual


@pytest.fixture(scope="module")
def image():
    return torch.randn(2, 3, 96, 160)


def naive_pool(pool, maps, positions, every):
    """The attention of open_clip's pool, by PyTorch's own function."""
    x = maps.flatten(2).permute(2, 0, 1)
    x = torch.cat([x.mean(0, keepdim=True), x])
    if positions is not None:
        x = x + positions[:, None]
    out, _ = F.multi_head_attention_forward(
        x if every else x[:1], x, x, x.shape[-1], pool.num_heads, None,
        torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]), None, None, False, 0.0,
        pool.c_proj.weight, pool.c_proj.bias, False, need_weights=False, use_separate_proj_weight=True,
        q_proj_weight=pool.q_proj.weight, k_proj_weight=pool.k_proj.weight, v_proj_weight=pool.v_proj.weight,
    )  # fmt: skip
    return out.transpose(0, 1)


@torch.no_grad()
def test_stages_equal_open_clips(models, image):
    theirs, ours = models
    x = theirs.stem(image)
    for stage, got in zip((theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4), ours.stages(image)):
        x = stage(x)
        torch.testing.assert_close(got, x, **TOLERANCE)
    assert [m.shape[-2:] for m in ours.stages(image)] == [(24, 40), (12, 20), (6, 10), (3, 5)]


@torch.no_grad()
@pytest.mark.parametrize("rule", ["bicubic", "bilinear", "bicubic_antialias"])
def test_other_sizes_resize_the_position_table_by_the_rule(models, image, rule):
    theirs, ours = models
    table = resize_pos_embed(theirs.attnpool.positional_embedding, (3, 3), (3, 5), rule)
    wanted = naive_pool(theirs.attnpool, ours.stages(image)[-1], table, every=False)[:, 0]
    torch.testing.assert_close(ours(image, rule), wanted, **TOLERANCE)


@torch.no_grad()
def test_region_embeddings_equal_the_rest_of_open_clips_tower(models, image):
    theirs, ours = models
    boxes = torch.tensor([[0, 0.0, 0.0, 96.0, 96.0], [1, 10.0, 20.0, 150.0, 80.0]])
    regions = roi_align(ours.stages(image)[2], boxes, (6, 6), 1 / 16, aligned=True)
    wanted = theirs.attnpool(theirs.layer4(regions))
    torch.testing.assert_close(ours.region_embedding(regions), wanted, **TOLERANCE)
    larger = roi_align(ours.stages(image)[2], boxes, (14, 14), 1 / 16, aligned=True)
    assert ours.region_embedding(larger, "bilinear").shape == (2, ours.config.output_dim)


@torch.no_grad()
@pytest.mark.parametrize("rule", [None, "bilinear"])
def test_full_attention_gives_every_position_and_their_mean(models, image, rule):
    theirs, ours = models
    table = rule and resize_pos_embed(theirs.attnpool.positional_embedding, (3, 3), (3, 5), rule)
    wanted = naive_pool(theirs.attnpool, ours.stages(image)[-1], table, every=True)
    dense = ours.forward_dense(image, attention="full", pos_embed=rule)
    torch.testing.assert_close(dense.cls, wanted[:, 0], **TOLERANCE)
    torch.testing.assert_close(dense.patches, wanted[:, 1:].transpose(1, 2).unflatten(2, (3, 5)), **TOLERANCE)
    assert (dense.grid, dense.stride) == ((3, 5), 32)


@torch.no_grad()
def test_values_are_two_convolutions(models, image):
    theirs, ours = models
    maps, pool = ours.stages(image)[-1], theirs.attnpool
    values = F.conv2d(maps, pool.v_proj.weight[..., None, None], pool.v_proj.bias)
    wanted = F.conv2d(values, pool.c_proj.weight[..., None, None], pool.c_proj.bias)
    dense = ours.forward_dense(image)
    torch.testing.assert_close(dense.patches, wanted, **TOLERANCE)
    keys = F.conv2d(maps, pool.k_proj.weight[..., None, None], pool.k_proj.bias).flatten(2).transpose(1, 2)
    torch.testing.assert_close(dense.taps[-1, "k"], keys, **TOLERANCE)
    assert dense.cls is None
    with pytest.raises(ValueError, match="pos_embed='bilinear'"):
        ours.forward_dense(image, pos_embed="bilinear")


@torch.no_grad()
@pytest.mark.slow
def test_compiles_without_graph_breaks(models, image):
    _, ours = models
    for function in (ours, ours.forward_dense, lambda x: ours.region_embedding(ours.stages(x)[2])):
        got = torch.compile(function, fullgraph=True, backend="aot_eager")(image)
        wanted = function(image)
        got, wanted = (x if isinstance(x, torch.Tensor) else x.patches for x in (got, wanted))
        torch.testing.assert_close(got, wanted, **TOLERANCE)
