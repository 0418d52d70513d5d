"""State dicts of other code bases to ours and back: pure functions, strict about names.

Ours is the layout of open_clip's ``CustomTextCLIP``: ``visual.*``, ``text.*``, ``logit_scale``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "Layout", "convert", "convert_cat_seg", "convert_hf_clip", "convert_open_clip", "convert_openai",
    "recognise", "split_projections", "to_hf_clip", "to_open_clip",
]  # fmt: skip

StateDict = dict[str, Tensor]
Layout = Literal["ovseg", "open_clip", "openai", "hf_clip", "cat_seg"]

_TEXT = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")
_TEXT_BUFFERS = ("attn_mask", "text.attn_mask")
_OPENAI_SCALARS = ("input_resolution", "context_length", "vocab_size")
_SPLIT = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
_CAT_SEG_PREFIX = "sem_seg_head.predictor.clip_model."


def recognise(state_dict: Mapping[str, Tensor]) -> Layout:
    """Which code base a CLIP state dict comes from, told by its names.

    Returns:
        ``ovseg`` (also open_clip's ``CustomTextCLIP``), ``open_clip`` (the flat layout), ``openai`` (flat,
        with three scalars), ``hf_clip`` (``transformers.CLIPModel``), ``cat_seg`` (flat, projections split).

    Raises:
        ValueError: None of them.
    """
    if any(name.endswith(_SPLIT) for name in state_dict):
        return "cat_seg"
    if "vision_model.embeddings.class_embedding" in state_dict:
        return "hf_clip"
    if "visual.conv1.weight" in state_dict:
        if "text.token_embedding.weight" in state_dict:
            return "ovseg"
        if "token_embedding.weight" in state_dict:
            return "openai" if "input_resolution" in state_dict else "open_clip"
    first = ", ".join(list(state_dict)[:4])
    raise ValueError(
        f"not a CLIP state dict of a known layout (open_clip, OpenAI, Hugging Face CLIPModel): "
        f"it starts with {first}"
    )


def convert(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Any recognised layout to ours.

    Raises:
        ValueError: The layout is not recognised, or a name in it is not part of the layout.
    """
    return _with_counters(_CONVERTERS[recognise(state_dict)](state_dict))


def _with_counters(state_dict: StateDict) -> StateDict:
    """BatchNorm's step counters, where they were not saved: nothing but training reads them."""
    stems = [name.removesuffix("running_var") for name in state_dict if name.endswith("running_var")]
    return {f"{stem}num_batches_tracked": torch.tensor(0) for stem in stems} | state_dict


def convert_open_clip(state_dict: Mapping[str, Tensor]) -> StateDict:
    """open_clip's flat ``CLIP``: the text tower's names get their prefix."""
    return {
        f"text.{name}" if name.startswith(_TEXT) else name: value
        for name, value in state_dict.items()
        if name not in _TEXT_BUFFERS
    }


def to_open_clip(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Ours to open_clip's flat ``CLIP``."""
    return {name.removeprefix("text."): value for name, value in state_dict.items()}


def convert_openai(state_dict: Mapping[str, Tensor]) -> StateDict:
    """OpenAI's archive: as ``convert_open_clip``, without its three scalars."""
    return convert_open_clip({k: v for k, v in state_dict.items() if k not in _OPENAI_SCALARS})


def _ours(state_dict: Mapping[str, Tensor]) -> StateDict:
    return {name: value for name, value in state_dict.items() if name not in _TEXT_BUFFERS}


def convert_cat_seg(state_dict: Mapping[str, Tensor]) -> StateDict:
    """CAT-Seg's copy of CLIP, whose attention keeps three weights and one bias, to ours.

    Args:
        state_dict: With or without CAT-Seg's prefix; with it, only the names below it are taken.

    Raises:
        ValueError: A block lacks one of the three.
    """
    if any(name.startswith(_CAT_SEG_PREFIX) for name in state_dict):
        state_dict = {
            name.removeprefix(_CAT_SEG_PREFIX): value
            for name, value in state_dict.items()
            if name.startswith(_CAT_SEG_PREFIX)
        }
    merged = {name: value for name, value in state_dict.items() if not name.endswith(_SPLIT)}
    for name in state_dict:
        if name.endswith(_SPLIT):
            stem = name.rsplit(".", 1)[0]
            merged[f"{stem}.in_proj_weight"] = _joined(state_dict, [f"{stem}.{part}" for part in _SPLIT])
    flat = "text.token_embedding.weight" not in merged
    return convert_openai(merged) if flat else _ours(merged)


def split_projections(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Every ``attn.in_proj_weight`` as three weights, as CAT-Seg trains them; the bias stays whole."""
    out: StateDict = {}
    for name, value in state_dict.items():
        if name.endswith("attn.in_proj_weight"):
            stem = name.removesuffix("in_proj_weight")
            out |= {stem + part: rows for part, rows in zip(_SPLIT, value.chunk(3))}
        else:
            out[name] = value
    return out


def _joined(state_dict: Mapping[str, Tensor], names: list[str]) -> Tensor:
    missing = [name for name in names if name not in state_dict]
    if missing:
        raise ValueError(f"the state dict lacks {', '.join(missing)}")
    return torch.cat([state_dict[name] for name in names])


# Hugging Face names, and ours.
_HF_PROJECTIONS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_HF_BLOCK = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_HF_NAMES = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",  # spelt so by transformers
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    "text_model.embeddings.token_embedding.weight": "text.token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "text.positional_embedding",
    "text_model.final_layer_norm.weight": "text.ln_final.weight",
    "text_model.final_layer_norm.bias": "text.ln_final.bias",
    "logit_scale": "logit_scale",
}
_HF_TRANSPOSED = {
    "visual_projection.weight": "visual.proj",
    "text_projection.weight": "text.text_projection",
}
_HF_TOWERS = {"vision_model": "visual", "text_model": "text"}
_HF_LAYER = re.compile(r"(vision_model|text_model)\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_OUR_LAYER = re.compile(r"(visual|text)\.transformer\.resblocks\.(\d+)\.(.+)")


def convert_hf_clip(state_dict: Mapping[str, Tensor]) -> StateDict:
    """``transformers.CLIPModel`` to ours: q, k and v are joined, projections transposed.

    Raises:
        ValueError: A name is not one of a ``CLIPModel``, or a q, k or v is missing.
    """
    out: StateDict = {}
    for name, value in state_dict.items():
        layer = _HF_LAYER.fullmatch(name)
        if name.endswith("embeddings.position_ids"):  # a buffer of older releases
            continue
        if name in _HF_TRANSPOSED:
            out[_HF_TRANSPOSED[name]] = value.T.contiguous()
        elif layer and layer[3] in _HF_PROJECTIONS:
            parts = [name.replace(layer[3], part) for part in _HF_PROJECTIONS]
            if name == parts[0] or parts[0] not in state_dict:
                stem = f"{_HF_TOWERS[layer[1]]}.transformer.resblocks.{layer[2]}"
                out[f"{stem}.attn.in_proj_{layer[4]}"] = _joined(state_dict, parts)
        elif layer and layer[3] in _HF_BLOCK:
            stem = f"{_HF_TOWERS[layer[1]]}.transformer.resblocks.{layer[2]}"
            out[f"{stem}.{_HF_BLOCK[layer[3]]}.{layer[4]}"] = value
        elif name in _HF_NAMES:
            out[_HF_NAMES[name]] = value
        else:
            raise ValueError(f"{name!r} is no part of a Hugging Face CLIPModel")
    return out


def to_hf_clip(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Ours (ViT) to ``transformers.CLIPModel``.

    Raises:
        ValueError: A name has no counterpart there (ResNets, LayerScale).
    """
    names = {ours: theirs for theirs, ours in _HF_NAMES.items()}
    transposed = {ours: theirs for theirs, ours in _HF_TRANSPOSED.items()}
    towers = {ours: theirs for theirs, ours in _HF_TOWERS.items()}
    parts = {ours: theirs for theirs, ours in _HF_BLOCK.items()}
    out: StateDict = {}
    for name, value in state_dict.items():
        layer = _OUR_LAYER.fullmatch(name)
        if name in transposed:
            out[transposed[name]] = value.T.contiguous()
        elif name in names:
            out[names[name]] = value
        elif layer and layer[3].startswith("attn.in_proj_"):
            stem = f"{towers[layer[1]]}.encoder.layers.{layer[2]}"
            kind = layer[3].removeprefix("attn.in_proj_")
            out |= {f"{stem}.{part}.{kind}": rows for part, rows in zip(_HF_PROJECTIONS, value.chunk(3))}
        elif layer and layer[3].rpartition(".")[0] in parts:
            part, _, kind = layer[3].rpartition(".")
            out[f"{towers[layer[1]]}.encoder.layers.{layer[2]}.{parts[part]}.{kind}"] = value
        else:
            raise ValueError(f"{name!r} has no counterpart in a Hugging Face CLIPModel")
    return out


_CONVERTERS: dict[Layout, Callable[[Mapping[str, Tensor]], StateDict]] = {
    "ovseg": _ours,
    "open_clip": convert_open_clip,
    "openai": convert_openai,
    "hf_clip": convert_hf_clip,
    "cat_seg": convert_cat_seg,
}
