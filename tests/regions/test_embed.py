from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ovseg.dense.attention import identity
from ovseg.dense.readout import Readout
from ovseg.regions.embed import embed_by_pool, embed_crops, embed_dense, embed_masks, region_maps
from ovseg.towers.clip_resnet import ModifiedResNet, ResNetConfig


def resnet(image_size):
    torch.manual_seed(0)
    tower = ModifiedResNet(ResNetConfig((1, 2, 1, 1), 8, 4, image_size, 24)).eval()
    torch.nn.init.normal_(tower.attnpool.positional_embedding)
    return tower


def test_a_box_around_a_constant_map_gives_the_constant():
    maps = torch.full((1, 3, 5, 7), 2.5)
    out = region_maps(maps, [torch.tensor([[0.0, 0, 7 * 16, 5 * 16]])], 14, 16)
    torch.testing.assert_close(out, torch.full((1, 3, 14, 14), 2.5))


@pytest.mark.parametrize("cells", [(0, 0, 3, 3), (1, 2, 4, 3), (2, 0, 6, 5)])
def test_one_cell_is_the_mean_of_the_cells_that_a_box_covers(cells):
    maps = torch.randn(1, 4, 5, 7)
    x1, y1, x2, y2 = cells
    out = region_maps(maps, [16 * torch.tensor([cells]).float()], 1, 16)
    torch.testing.assert_close(out[0, :, 0, 0], maps[0, :, y1:y2, x1:x2].mean(dim=(1, 2)))


@pytest.mark.parametrize("image_size", [64, 224, 288])
def test_a_region_on_its_own_grid_is_clip_s_embedding_of_the_image(image_size):
    """RoIAlign of a whole map onto its own cells is the identity: then the region path is CLIP's own."""
    tower, image = resnet(image_size), torch.randn(2, 3, image_size, image_size)
    box = torch.tensor([[0.0, 0, image_size, image_size]])
    with torch.no_grad():
        got = embed_by_pool(tower, tower.stage3(image), [box, box])
        torch.testing.assert_close(got, tower(image), atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_regions_do_not_depend_on_how_many_run_at_once():
    tower, images = resnet(64), torch.randn(2, 3, 96, 128)
    boxes = [torch.rand(n, 4) * 40 + torch.tensor([0, 0, 50, 40]) for n in (5, 2)]
    maps = tower.stage3(images)
    together = embed_by_pool(tower, maps, boxes)
    assert together.shape == (7, 24)
    torch.testing.assert_close(embed_by_pool(tower, maps, boxes, at_once=3), together)
    torch.testing.assert_close(embed_by_pool(tower, maps[1:], [boxes[1]]), together[5:])
    assert embed_by_pool(tower, maps, [torch.zeros(0, 4)] * 2).shape == (0, 24)


@torch.no_grad()
def test_pool_without_keys_and_values_is_attention_with_one_query():
    tower = resnet(64)
    tokens = torch.randn(3, 17, 256)
    for layer in (tower.attnpool.q_proj, tower.attnpool.k_proj, tower.attnpool.v_proj):
        torch.nn.init.normal_(layer.bias)
    wanted = tower.attnpool.attend(tokens[:, :1], tokens)[:, 0]
    torch.testing.assert_close(tower.attnpool.attend_mean(tokens), wanted, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_dense_tokens_without_attention_see_only_themselves(tiny_clip):
    tower = tiny_clip.model.visual
    tokens = torch.randn(1, 17, 64)
    block = tower.blocks[-1]

    def last(x):
        values = block.attn.out_proj(
            block.ln_1(x) @ block.attn.in_proj_weight[128:].T + block.attn.in_proj_bias[128:]
        )
        x = x + values
        return x + block.mlp(block.ln_2(x))

    image = torch.randn(1, 3, 64, 64)
    dense = tower.forward_dense(image, Readout(identity, residual="own", mlp=True, taps=((-2, "out"),)))
    before = dense.taps[-2, "out"]
    wanted = tower.ln_post(last(before)) @ tower.proj
    torch.testing.assert_close(dense.patches.flatten(2).transpose(1, 2), wanted[:, 1:], atol=1e-5, rtol=1e-4)
    changed = tokens.clone()
    changed[0, 5] += 1
    moved = (last(changed) - last(tokens)).abs().sum(dim=-1)[0]
    assert moved[5] > 0 and moved[torch.arange(17) != 5].max() == 0


def test_normalising_before_or_after_the_mean():
    boxes = [torch.tensor([[0.0, 0, 64, 32], [20, 4, 60, 30]])]

    def both(maps):
        return [
            F.normalize(embed_dense(maps, boxes, 16, normalise_first=first), dim=1) for first in (True, False)
        ]

    one, other = both(torch.randn(1, 8, 2, 4))
    assert (one - other).abs().max() > 0.01
    torch.testing.assert_close(*both(F.normalize(torch.randn(1, 8, 2, 4), dim=1) * 3))
    point = [torch.tensor([[16.0, 16, 32, 32]])]  # its only sample falls on the centre of a cell
    maps = torch.randn(1, 8, 2, 4)
    for first in (True, False):
        got = F.normalize(embed_dense(maps, point, 16, normalise_first=first), dim=1)[0]
        torch.testing.assert_close(got, F.normalize(maps[0, :, 1, 1], dim=0))


def flat(crops):
    """An encoder that keeps everything."""
    return crops.flatten(1)


def test_the_crop_of_the_whole_image_is_the_image():
    image = torch.randn(3, 16, 16)
    out = embed_crops(flat, image, torch.tensor([[0.0, 0, 16, 16], [-9, -9, 40, 40]]), 16)
    wanted = F.normalize(image.flatten(), dim=0)
    torch.testing.assert_close(out, torch.stack([wanted, wanted]))


def test_crops_at_two_scales_have_unit_length():
    image = torch.rand(3, 40, 60)
    boxes = torch.tensor([[10.0, 10, 30, 30], [50.0, 0, 60, 10], [59.9, 39.9, 80, 80]])
    out = embed_crops(flat, image, boxes, 8, scales=(1, 1.5))
    torch.testing.assert_close(out.norm(dim=1), torch.ones(3))
    larger = torch.tensor([[5.0, 5, 35, 35]])
    parts = [embed_crops(flat, image, b, 8) for b in (boxes[:1], larger)]
    torch.testing.assert_close(out[:1], F.normalize(parts[0] + parts[1], dim=1))


def test_masks_average_what_lies_under_them():
    patches = torch.randn(8, 4, 6)
    masks = torch.zeros(3, 32, 48, dtype=torch.bool)
    masks[0, 8:16, 16:32] = True  # two patches
    masks[1] = True
    out = embed_masks(patches, masks)
    torch.testing.assert_close(out[0], patches[:, 1, 2:4].mean(dim=1))
    torch.testing.assert_close(out[1], patches.mean(dim=(1, 2)))
    assert not out[2].any()
