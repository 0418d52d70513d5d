"""Layouts of other code bases: recognised by their names, converted without loss."""

from __future__ import annotations

import pytest
import torch
from open_clip_models import cut_config, reference
from tiny_clips import RESNET, VIT, flat, tiny_clip

from ovseg.towers.converters import (
    convert,
    convert_cat_seg,
    convert_hf_clip,
    recognise,
    split_projections,
    to_hf_clip,
    to_open_clip,
)

# The names of a transformers.CLIPModel with one block per tower, as published checkpoints have them.
_LAYER = [
    f"{part}.{kind}"
    for part in (
        "self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "self_attn.out_proj",
        "layer_norm1", "mlp.fc1", "mlp.fc2", "layer_norm2",
    )
    for kind in ("weight", "bias")
]  # fmt: skip
HF_NAMES = {
    "logit_scale",
    "text_model.embeddings.token_embedding.weight",
    "text_model.embeddings.position_embedding.weight",
    *(f"text_model.encoder.layers.0.{name}" for name in _LAYER),
    "text_model.final_layer_norm.weight",
    "text_model.final_layer_norm.bias",
    "vision_model.embeddings.class_embedding",
    "vision_model.embeddings.patch_embedding.weight",
    "vision_model.embeddings.position_embedding.weight",
    "vision_model.pre_layrnorm.weight",
    "vision_model.pre_layrnorm.bias",
    *(f"vision_model.encoder.layers.0.{name}" for name in _LAYER),
    "vision_model.post_layernorm.weight",
    "vision_model.post_layernorm.bias",
    "visual_projection.weight",
    "text_projection.weight",
}


def same(a, b):
    assert set(a) == set(b)
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.fixture(scope="module", params=[VIT, RESNET], ids=["vit", "resnet"])
def ours(request):
    return tiny_clip(request.param).state_dict()


def test_open_clip_and_openai_layouts(ours):
    same(to_open_clip(ours), flat(ours))
    assert recognise(flat(ours)) == "open_clip"
    same(convert(flat(ours)), ours)
    archive = flat(ours) | {n: torch.tensor(1) for n in ("input_resolution", "context_length", "vocab_size")}
    assert recognise(archive) == "openai"
    same(convert(archive), ours)
    same(convert(flat(ours) | {"attn_mask": torch.zeros(16, 16)}), ours)


def test_step_counters_of_batch_norm_may_be_absent():
    ours = tiny_clip(RESNET).state_dict()
    ours["visual.bn1.num_batches_tracked"].fill_(7)
    without = {
        name: value for name, value in flat(ours).items() if "layer" not in name or "num_b" not in name
    }
    assert len(without) < len(ours)
    same(convert(without), ours)


def test_flat_names_are_open_clips_own(ours):
    theirs = reference(cut_config("RN50" if "visual.layer1.0.conv1.weight" in ours else "ViT-S-16", 2))
    no_depth = {name for name in theirs.state_dict() if "resblocks" not in name and "layer" not in name}
    assert no_depth == {name for name in flat(ours) if "resblocks" not in name and "layer" not in name}


def test_custom_text_clip_is_our_own_layout(ours):
    assert recognise(ours) == "ovseg"
    same(convert(ours | {"text.attn_mask": torch.zeros(16, 16)}), ours)


def test_hugging_face_layout():
    ours = tiny_clip().state_dict()
    theirs = to_hf_clip(ours)
    one_block = {name for name in theirs if ".layers.1." not in name}
    assert one_block == HF_NAMES
    assert recognise(theirs) == "hf_clip"
    ids = {
        f"{tower}.embeddings.position_ids": torch.arange(16)[None] for tower in ("text_model", "vision_model")
    }
    same(convert(theirs | ids), ours)

    width = VIT["vision_cfg"]["width"]
    layer = "vision_model.encoder.layers.1.self_attn"
    fused = ours["visual.transformer.resblocks.1.attn.in_proj_weight"]
    assert torch.equal(theirs[f"{layer}.q_proj.weight"], fused[:width])
    assert torch.equal(theirs[f"{layer}.v_proj.weight"], fused[2 * width :])
    assert torch.equal(theirs["visual_projection.weight"], ours["visual.proj"].T)


@pytest.mark.parametrize("lost", ["q_proj", "k_proj", "v_proj"])
def test_hugging_face_layout_is_strict(lost):
    theirs = to_hf_clip(tiny_clip().state_dict())
    with pytest.raises(ValueError, match="no part of a Hugging Face CLIPModel"):
        convert_hf_clip(theirs | {"vision_model.head.weight": torch.zeros(1)})
    name = f"text_model.encoder.layers.1.self_attn.{lost}.weight"
    del theirs[name]
    with pytest.raises(ValueError, match=f"lacks {name}"):
        convert_hf_clip(theirs)
    with pytest.raises(ValueError, match="no counterpart"):
        to_hf_clip(tiny_clip(RESNET).state_dict())


def test_cat_seg_layout():
    ours = tiny_clip().state_dict()
    split = split_projections(flat(ours))
    stem = "transformer.resblocks.0.attn"
    assert f"{stem}.in_proj_weight" not in split and f"{stem}.in_proj_bias" in split
    assert torch.equal(split[f"{stem}.v_proj_weight"], ours[f"text.{stem}.in_proj_weight"][-64:])
    assert recognise(split) == "cat_seg"
    same(convert(split), ours)
    whole = {f"sem_seg_head.predictor.clip_model.{name}": value for name, value in split.items()}
    same(convert(whole | {"sem_seg_head.predictor.transformer.conv1.weight": torch.zeros(1)}), ours)
    same(convert_cat_seg(split_projections(ours)), ours)
    del split[f"{stem}.k_proj_weight"]
    with pytest.raises(ValueError, match=f"lacks {stem}.k_proj_weight"):
        convert(split)


def test_others_are_not_recognised():
    with pytest.raises(ValueError, match=r"known layout .* starts with backbone.conv1.weight"):
        recognise({"backbone.conv1.weight": torch.zeros(1)})
