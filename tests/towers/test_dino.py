"""Our reading of self-supervised ViTs against the published definitions, on random weights in the published layouts."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.towers.auxiliary import AuxiliaryInfo, auxiliary_info, auxiliary_tower
from ovseg.towers.checkpoints import CheckpointError
from ovseg.towers.dino import SelfSupervisedViT, class_attention, convert_vit, create_vit, load_vit, read_taps

WIDTH, HEADS, DEPTH = 48, 3, 3
SMALL = {"embed_dim": WIDTH, "num_heads": HEADS, "depth": DEPTH}
DINO = replace(auxiliary_info("dino_vit_b8"), options={**SMALL, "img_size": 32})
DINOV2 = replace(auxiliary_info("dinov2_vit_b14"), options={**SMALL, "img_size": 56})
REGISTERS = replace(auxiliary_info("dinov2_vit_b14_reg"), options={**SMALL, "img_size": 56})
GIANT = replace(auxiliary_info("dinov2_vit_g14"), options={**SMALL, "img_size": 56})
MAE = replace(auxiliary_info("mae_vit_b16"), options={**SMALL, "img_size": 64})


def published_weights(info: AuxiliaryInfo) -> dict[str, Tensor]:
    """Random weights under the names of the authors' files."""
    torch.manual_seed(0)
    own = create_vit(info).state_dict()
    weights = {name: 0.2 * torch.randn_like(value) for name, value in own.items()}
    if "reg_token" in weights:
        weights["register_tokens"] = weights.pop("reg_token")
        weights["pos_embed"] = 0.2 * torch.randn(1, weights["pos_embed"].shape[1] + 1, WIDTH)
    if "_g14" in info.name:  # SwiGLU, packed
        for name in [name for name in weights if "mlp" in name]:
            renamed = name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3")
            weights[renamed] = weights.pop(name)
    if "dinov2" in info.name:
        weights["mask_token"] = torch.randn(1, WIDTH)
    if "mae" in info.name:
        weights.update({"mask_token": torch.randn(1, 1, 8), "decoder_embed.weight": torch.randn(8, WIDTH)})
    return weights


def published_positions(weights, image, patch, rule):
    """The authors' ``interpolate_pos_encoding``."""
    table, (h, w) = weights["pos_embed"], (image.shape[-2] // patch, image.shape[-1] // patch)
    count = table.shape[1] - 1
    side = math.isqrt(count)
    if rule != "mae" and h * w == count and image.shape[-2] == image.shape[-1]:
        return table
    grid = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if rule == "dino":
        resized = F.interpolate(grid, scale_factor=((h + 0.1) / side, (w + 0.1) / side), mode="bicubic")
    else:
        resized = F.interpolate(grid, size=(h, w), mode="bicubic", antialias=rule == "registers")
    return torch.cat([table[:, :1], resized.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def published_forward(weights, image01, patch, rule):
    """Last output after the norm, and of every block q, k, v and the attention after its softmax."""

    def linear(x, name):
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)

    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    image = (image01 - mean) / std
    x = F.conv2d(image, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=patch)
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([weights["cls_token"].expand(len(x), -1, -1), x], dim=1)
    x = x + published_positions(weights, image, patch, rule)
    if "register_tokens" in weights:
        registers = weights["register_tokens"].expand(len(x), -1, -1)
        x = torch.cat([x[:, :1], registers, x[:, 1:]], dim=1)
    inner = []
    for i in range(DEPTH):
        at = f"blocks.{i}"
        q, k, v = linear(norm(x, f"{at}.norm1"), f"{at}.attn.qkv").chunk(3, dim=-1)
        heads = [part.reshape(*part.shape[:2], HEADS, -1).transpose(1, 2) for part in (q, k, v)]
        attention = (heads[0] @ heads[1].transpose(-1, -2) * (WIDTH // HEADS) ** -0.5).softmax(dim=-1)
        mixed = (attention @ heads[2]).transpose(1, 2).flatten(2)
        x = x + weights.get(f"{at}.ls1.gamma", 1) * linear(mixed, f"{at}.attn.proj")
        normed = norm(x, f"{at}.norm2")
        if f"{at}.mlp.w12.weight" in weights:
            gate, value = linear(normed, f"{at}.mlp.w12").chunk(2, dim=-1)
            hidden = linear(F.silu(gate) * value, f"{at}.mlp.w3")
        else:
            hidden = linear(F.gelu(linear(normed, f"{at}.mlp.fc1")), f"{at}.mlp.fc2")
        x = x + weights.get(f"{at}.ls2.gamma", 1) * hidden
        inner.append({"q": q, "k": k, "v": v, "attention": attention, "out": x})
    return norm(x, "norm"), inner


def tower(info, weights) -> SelfSupervisedViT:
    vit = create_vit(info)
    vit.load_state_dict(convert_vit(weights))
    return SelfSupervisedViT(vit, info).eval()


CASES = {"dino": DINO, "dinov2": DINOV2, "giant": GIANT, "registers": REGISTERS, "mae": MAE}


@pytest.mark.parametrize("family", CASES)
@pytest.mark.parametrize(
    "size", [(4, 4, 0), (3, 6, 0), (2, 8, 0), (4, 4, 5)]
)  # patches, and pixels left over
def test_features_are_the_published_ones(family, size):
    info = CASES[family]
    weights = published_weights(info)
    ours = tower(info, weights)
    patch = ours.stride
    image = torch.rand(2, 3, size[0] * patch, size[1] * patch + size[2])
    rule = "dino" if family in ("dinov2", "giant") else family
    last, inner = published_forward(weights, image, patch, rule)

    taps = ((-1, "k"), (DEPTH - 1, "k"), (-1, "v"), (0, "q"), (1, "out"), (-1, "scores"))
    dense = ours(image, taps)
    prefix = 5 if family == "registers" else 1
    assert ours.prefix == prefix and dense.space == "width" and dense.grid == size[:2]
    close = {"atol": 2e-5, "rtol": 2e-5}
    torch.testing.assert_close(dense.patches.flatten(2).transpose(1, 2), last[:, prefix:], **close)
    torch.testing.assert_close(dense.cls, last[:, 0], **close)
    torch.testing.assert_close(dense.taps[-1, "k"], inner[-1]["k"], **close)
    torch.testing.assert_close(dense.taps[DEPTH - 1, "k"], inner[-1]["k"], **close)
    torch.testing.assert_close(dense.taps[-1, "v"], inner[-1]["v"], **close)
    torch.testing.assert_close(dense.taps[0, "q"], inner[0]["q"], **close)
    torch.testing.assert_close(dense.taps[1, "out"], inner[1]["out"], **close)
    torch.testing.assert_close(dense.taps[-1, "scores"].softmax(-1), inner[-1]["attention"], **close)


@pytest.mark.parametrize("taps", [((-1, "v"),), ((0, "out"), (1, "k")), ((1, "out"),)])
def test_taps_alone_are_the_same_and_later_blocks_do_not_run(taps, monkeypatch):
    ours, image = tower(DINO, published_weights(DINO)), torch.rand(2, 3, 32, 48)
    expected, ran = ours(image, taps), []
    for i, block in enumerate(ours.vit.blocks):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    found, grid = read_taps(ours, image, taps)
    assert grid == expected.grid == (4, 6) and set(found) == set(taps)
    for tap in taps:
        assert torch.equal(found[tap], expected.taps[tap])
    assert ran == {(-1, "v"): [0, 1], (0, "out"): [0], (1, "out"): [0, 1]}[taps[0]]


def test_taps_of_other_towers_come_from_their_forward():
    ours, image = tower(DINO, published_weights(DINO)), torch.rand(1, 3, 16, 24)
    found, grid = read_taps(lambda *given: ours(*given), image, ((0, "k"),))
    assert grid == (2, 3) and torch.equal(found[0, "k"], ours(image, ((0, "k"),)).taps[0, "k"])


def test_class_attention_is_the_class_tokens_row():
    weights = published_weights(DINO)
    image = torch.rand(2, 3, 32, 48)
    dense = tower(DINO, weights)(image, ((-1, "q"), (-1, "k")))
    attention = class_attention(dense.taps[-1, "q"], dense.taps[-1, "k"], HEADS)
    expected = published_forward(weights, image, 8, "dino")[1][-1]["attention"][:, :, 0, 1:]
    torch.testing.assert_close(attention, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", CASES)
def test_files_of_the_authors_and_of_timm_load(family, tmp_path):
    info = CASES[family]
    weights = published_weights(info)
    original, converted = tmp_path / "original.pth", tmp_path / "timm.pth"
    torch.save({"model": weights} if family == "mae" else weights, original)
    torch.save(convert_vit(weights), converted)
    image = torch.rand(1, 3, 56, 56)
    expected = tower(info, weights)(image).patches
    for path in (original, converted):
        loaded = load_vit(info, path)
        assert not any(parameter.is_meta for parameter in loaded.parameters())
        torch.testing.assert_close(loaded(image).patches, expected)


def test_a_file_of_another_architecture_is_refused(tmp_path):
    torch.save(published_weights(DINO), tmp_path / "dino.pth")
    with pytest.raises(CheckpointError, match=r"dino.pth as vit_base_patch14_dinov2"):
        load_vit(DINOV2, tmp_path / "dino.pth")


def test_it_is_found_by_name_frozen_and_shared(tmp_path, monkeypatch):
    from ovseg.towers import auxiliary

    monkeypatch.setattr(auxiliary, "_table", {"dino_vit_b8": DINO})
    monkeypatch.setattr(auxiliary, "_built", {})
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path))
    folder = tmp_path / "towers" / "dino_vit_b8"
    folder.mkdir(parents=True)
    torch.save(published_weights(DINO), folder / "dino_vitbase8_pretrain.pth")
    found = auxiliary_tower("dino_vit_b8")
    assert found is auxiliary_tower("dino_vit_b8")
    assert not found.training and not any(p.requires_grad for p in found.parameters())


def test_what_cannot_be_read_is_named():
    ours = tower(DINO, published_weights(DINO))
    with pytest.raises(ValueError, match="smaller than a patch of 8"):
        ours(torch.rand(1, 3, 7, 40))
    with pytest.raises(ValueError, match=r"tap \(3, 'k'\): dino_vit_b8 has 3 blocks"):
        ours(torch.rand(1, 3, 16, 16), ((3, "k"),))
    with pytest.raises(ValueError, match="'ln_2'"):
        ours(torch.rand(1, 3, 16, 16), ((0, "ln_2"),))
