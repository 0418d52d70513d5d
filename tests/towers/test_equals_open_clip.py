"""Our towers give open_clip's embeddings for every plain architecture of its table."""

from __future__ import annotations

import pytest
import torch
from open_clip_models import cut_config, random_tokens, reference, unit

from ovseg.dense.readout import Readout
from ovseg.towers.clip import CLIP, architecture, list_architectures
from ovseg.towers.converters import convert_open_clip, to_open_clip

TOLERANCE = 1e-5
# One of each kind runs always; the rest differ in numbers only and take minutes.
FAST = {
    "RN50", "RN50x4-quickgelu", "ViT-B-16-quickgelu", "ViT-B-32", "ViT-B-32-plus-256", "ViT-M-16-alt",
    "ViT-S-16", "ViT-L-14-CLIPA", "ViT-L-14-worldwide-quickgelu", "ViT-H-14-worldwide",
}  # fmt: skip
ALL = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in list_architectures()]


def pair(cfg):
    """open_clip's model and ours, which shares its tensors; both directions of the strict load are checked."""
    theirs = reference(cfg)
    ours = CLIP.without_values(architecture(cfg))
    ours.load_state_dict(convert_open_clip(theirs.state_dict()), assign=True, strict=True)
    theirs.load_state_dict(to_open_clip(ours.state_dict()), strict=True)
    return theirs, ours.eval()


def images(height: int, width: int, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("name", ALL)
def test_both_embeddings_equal_open_clips(name):
    cfg = cut_config(name)
    theirs, ours = pair(cfg)
    size = cfg["vision_cfg"].get("image_size", 224)
    image, tokens = images(size, size), random_tokens(cfg)
    wanted = unit(theirs.encode_image(image))
    torch.testing.assert_close(unit(ours.encode_image(image)), wanted, atol=TOLERANCE, rtol=0)
    wanted = unit(theirs.encode_text(tokens))
    torch.testing.assert_close(unit(ours.encode_text(tokens)), wanted, atol=TOLERANCE, rtol=0)
    assert ours.logit_scale.exp() == theirs.logit_scale.exp()


def test_every_listed_architecture_is_a_plain_one_and_all_are_listed():
    names = list_architectures()
    assert len(names) == len(set(names)) >= 50
    assert {"ViT-B-16", "ViT-bigG-14-CLIPA-336", "RN50x64-quickgelu", "ViT-H-14-worldwide-378"} <= set(names)
    assert not [n for n in names if n.startswith(("coca", "EVA", "convnext", "xlm", "MobileCLIP"))]


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (224, 160), (100, 170)])
@pytest.mark.parametrize("name", ["ViT-S-16", "ViT-L-14-CLIPA"])
def test_other_sizes_equal_a_model_that_open_clip_builds_for_them(name, size):
    from open_clip.model import resize_pos_embed

    cfg = cut_config(name)
    theirs, ours = pair(cfg)
    state_dict = theirs.state_dict()
    cfg["vision_cfg"]["image_size"] = size
    resized = reference(cfg)
    resize_pos_embed(state_dict, resized)  # as its loader does
    resized.load_state_dict(state_dict, strict=True)
    image = images(*size, batch=2)
    wanted = unit(resized.encode_image(image))
    torch.testing.assert_close(unit(ours.encode_image(image)), wanted, atol=TOLERANCE, rtol=0)
    dense = ours.visual.forward_dense(image, Readout())
    assert dense.grid == (size[0] // dense.stride, size[1] // dense.stride)


@torch.no_grad()
@pytest.mark.parametrize("name", ["ViT-B-16-quickgelu", "ViT-M-16-alt"])
def test_the_default_readout_keeps_the_plain_class_token(name):
    _, ours = pair(cut_config(name))
    image = images(64, 96, batch=2)
    dense = ours.visual.forward_dense(image)
    torch.testing.assert_close(unit(dense.cls), unit(ours.encode_image(image)), atol=TOLERANCE, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", ["ViT-S-16", "ViT-B-32-quickgelu", "RN50"])
def test_bfloat16_stays_close(name):
    cfg = cut_config(name)
    _, ours = pair(cfg)
    size = cfg["vision_cfg"]["image_size"]
    image, tokens = images(size, size, batch=2), random_tokens(cfg)
    wanted = unit(ours.encode_image(image)), unit(ours.encode_text(tokens))
    half = ours.bfloat16()
    got = unit(half.encode_image(image.bfloat16()).float()), unit(half.encode_text(tokens).float())
    for a, b in zip(got, wanted):
        assert (a * b).sum(-1).min() > 0.995
    assert half.visual.forward_dense(image.bfloat16()).patches.dtype == torch.bfloat16


@torch.no_grad()
def test_a_shorter_batch_of_prompts_gives_the_same_embeddings():
    cfg = cut_config("ViT-S-16")
    _, ours = pair(cfg)
    tokens = random_tokens(cfg)
    alone = torch.cat([ours.encode_text(row[None, :20]) for row in tokens])
    torch.testing.assert_close(unit(alone), unit(ours.encode_text(tokens)), atol=TOLERANCE, rtol=0)
    with pytest.raises(ValueError, match="context length is 77"):
        ours.encode_text(torch.zeros(1, 78, dtype=torch.long))
