"""Which architecture a state dict or a Hugging Face configuration describes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from torch import Tensor

from ovseg.towers.clip import CLIPConfig, architecture, list_architectures
from ovseg.towers.clip_resnet import ResNetConfig
from ovseg.towers.clip_vit import ViTConfig
from ovseg.towers.layers import Activation, BlockConfig
from ovseg.towers.text import TextConfig

__all__ = ["HEAD_WIDTH", "config_from_hf", "infer_config"]

HEAD_WIDTH = 64
"""Channels of an attention head in every CLIP but a few, which open_clip's table has."""

_HF_ACTIVATIONS: dict[str, Activation] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


def infer_config(state_dict: Mapping[str, Tensor], activation: Activation) -> CLIPConfig:
    """The architecture behind a state dict in our layout, read from its names and shapes.

    What shapes do not tell (the number of heads, how a tower is pooled) is taken from the architecture of
    open_clip's table that has these shapes; where there is none, heads are 64 wide, as in CLIP.

    Args:
        state_dict: See ``ovseg.towers.converters``.
        activation: Of both towers; it leaves no trace in the weights.

    Raises:
        ValueError: The activation is unknown, or the shapes are not those of a CLIP.
    """
    if activation not in get_args(Activation):
        raise ValueError(f"unknown activation {activation!r}; one of {', '.join(get_args(Activation))}")
    try:
        vision = _resnet(state_dict) if "visual.layer1.0.conv1.weight" in state_dict else _vit(state_dict)
        found = CLIPConfig(vision, _text(state_dict))
    except KeyError as error:
        raise ValueError(f"the state dict lacks {error.args[0]!r}: not a whole CLIP") from error
    for name in list_architectures():
        known = architecture(name)
        if _shape_of(known) == _shape_of(found):
            found = known
            break
    return _with_activation(found, activation)


def _shape_of(config: CLIPConfig) -> CLIPConfig:
    """The configuration with all that leaves no trace in shapes set to one value."""
    vision, text = config.vision, config.text
    if isinstance(vision, ViTConfig):
        vision = replace(vision, blocks=_bare(vision.blocks), pool="tok")
    text = replace(text, blocks=_bare(text.blocks), pool="argmax", eos_id=2, causal=True)
    return CLIPConfig(vision, text)


def _bare(blocks: BlockConfig) -> BlockConfig:
    return replace(blocks, heads=1, activation="gelu", ln_eps=1e-5)


def _with_activation(config: CLIPConfig, activation: Activation) -> CLIPConfig:
    """The same architecture with one activation in both towers; the table's name goes, it implies one."""
    vision, text = config.vision, config.text
    if isinstance(vision, ViTConfig):
        vision = replace(vision, blocks=replace(vision.blocks, activation=activation))
    return CLIPConfig(vision, replace(text, blocks=replace(text.blocks, activation=activation)))


def _depth(state_dict: Mapping[str, Tensor], stem: str) -> int:
    pattern = re.compile(re.escape(stem) + r"\.(\d+)\.")
    found = {int(match[1]) for name in state_dict if (match := pattern.match(name))}
    return len(found)


def _blocks(state_dict: Mapping[str, Tensor], stem: str) -> BlockConfig:
    hidden, width = state_dict[f"{stem}.0.mlp.c_fc.weight"].shape
    return BlockConfig(
        width=width,
        layers=_depth(state_dict, stem),
        heads=max(1, width // HEAD_WIDTH),
        mlp_width=hidden,
        layer_scale=f"{stem}.0.ls_1.gamma" in state_dict,
    )


def _side(rows: int) -> int:
    side = math.isqrt(rows - 1)
    if side * side != rows - 1:
        raise ValueError(f"a position table of {rows} rows is not that of a square image")
    return side


def _vit(state_dict: Mapping[str, Tensor]) -> ViTConfig:
    patch = state_dict["visual.conv1.weight"].shape[-1]
    size = patch * _side(len(state_dict["visual.positional_embedding"]))
    return ViTConfig(
        _blocks(state_dict, "visual.transformer.resblocks"),
        patch,
        (size, size),
        state_dict["visual.proj"].shape[1],
        pre_norm="visual.ln_pre.weight" in state_dict,
    )


def _resnet(state_dict: Mapping[str, Tensor]) -> ResNetConfig:
    width = state_dict["visual.conv3.weight"].shape[0]
    a, b, c, d = (_depth(state_dict, f"visual.layer{i}") for i in range(1, 5))
    side = _side(len(state_dict["visual.attnpool.positional_embedding"]))
    output_dim = state_dict["visual.attnpool.c_proj.weight"].shape[0]
    return ResNetConfig((a, b, c, d), width, max(1, width * 32 // HEAD_WIDTH), side * 32, output_dim)


def _text(state_dict: Mapping[str, Tensor]) -> TextConfig:
    return TextConfig(
        _blocks(state_dict, "text.transformer.resblocks"),
        vocab_size=len(state_dict["text.token_embedding.weight"]),
        context_length=len(state_dict["text.positional_embedding"]),
        output_dim=state_dict["text.text_projection"].shape[1],
    )


def config_from_hf(config: Mapping[str, Any]) -> CLIPConfig:
    """The architecture in the ``config.json`` of a Hugging Face ``CLIPModel``; what is absent is its default.

    Raises:
        ValueError: It is not a ``CLIPModel``'s, or its activation is not one of CLIP's.
    """
    if config.get("model_type") != "clip" or "vision_config" not in config:
        raise ValueError(f"config.json describes a {config.get('model_type')!r} model, not a CLIPModel")
    v, t = config["vision_config"], config.get("text_config") or {}
    output_dim, patch, size = (
        config.get("projection_dim", 512),
        v.get("patch_size", 32),
        v.get("image_size", 224),
    )
    vision = ViTConfig(_hf_blocks(v, 768, 12), patch, (size, size), output_dim)
    text = TextConfig(
        _hf_blocks(t, 512, 8), t.get("vocab_size", 49408), t.get("max_position_embeddings", 77), output_dim
    )
    return CLIPConfig(vision, text)


def _hf_blocks(part: Mapping[str, Any], width: int, heads: int) -> BlockConfig:
    """``width`` and ``heads`` are the defaults of this tower."""
    activation = part.get("hidden_act", "quick_gelu")
    if activation not in _HF_ACTIVATIONS:
        raise ValueError(
            f"config.json asks for the activation {activation!r}; known: {', '.join(_HF_ACTIVATIONS)}"
        )
    return BlockConfig(
        width=part.get("hidden_size", width),
        layers=part.get("num_hidden_layers", 12),
        heads=part.get("num_attention_heads", heads),
        mlp_width=part.get("intermediate_size", 4 * width),
        activation=_HF_ACTIVATIONS[activation],
        ln_eps=part.get("layer_norm_eps", 1e-5),
    )
