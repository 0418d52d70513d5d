"""CLIP as a pair of towers, built from open_clip's architecture table."""

from __future__ import annotations

import difflib
import importlib.util
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ovseg.towers.clip_resnet import ModifiedResNet, ResNetConfig
from ovseg.towers.clip_vit import VisionTransformer, ViTConfig
from ovseg.towers.layers import Activation, BlockConfig
from ovseg.towers.table import OPENAI_MEAN, OPENAI_STD
from ovseg.towers.text import TextConfig, TextTransformer

__all__ = ["CLIP", "CLIPConfig", "architecture", "list_architectures"]

_BLOCK_FIELDS = {field.name for field in fields(BlockConfig)}


@dataclass(frozen=True)
class CLIPConfig:
    """Architecture of both towers.

    Attributes:
        vision: ViT or ResNet.
        text: Text transformer.
        name: open_clip's name of the architecture, or "" for one of our own.
    """

    vision: ViTConfig | ResNetConfig
    text: TextConfig
    name: str = ""

    def with_vision(self, **changes: Any) -> CLIPConfig:
        """A copy with other fields of the vision tower or, for a ViT, of its blocks.

        E.g. ``image_size=(336, 336)``, or ``activation="gelu", ln_eps=1e-6`` as in MaskCLIP's code.
        """
        vision = self.vision
        if isinstance(vision, ViTConfig):
            inner = {key: changes.pop(key) for key in list(changes) if key in _BLOCK_FIELDS}
            changes["blocks"] = replace(changes.get("blocks", vision.blocks), **inner)
        return replace(self, vision=replace(vision, **changes))


class _SkipInit(TorchFunctionMode):
    """Leaves out ``torch.nn.init``: random numbers on the meta device make torch import for two seconds."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


class CLIP(nn.Module):
    """Vision tower, text tower and temperature.

    Parameter names are those of open_clip's ``CustomTextCLIP`` (``visual.*``, ``text.*``, ``logit_scale``);
    ``ovseg.towers.converters`` maps the flat layout and others to it.

    Attributes:
        mean: Of the three channels of RGB images in [0, 1], which are normalised before ``encode_image``;
            ``LoadedClip`` sets those of its weights.
        std: As ``mean``.
    """

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.config = config
        self.mean, self.std = OPENAI_MEAN, OPENAI_STD
        self.visual: VisionTransformer | ModifiedResNet = (
            VisionTransformer(config.vision)
            if isinstance(config.vision, ViTConfig)
            else ModifiedResNet(config.vision)
        )
        self.text = TextTransformer(config.text)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @classmethod
    def without_values(cls, config: CLIPConfig) -> CLIP:
        """A CLIP on the meta device, to be given a state dict with ``assign=True``: no memory, no time."""
        with torch.device("meta"), _SkipInit():
            return cls(config)

    def encode_image(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images to embeddings (B, C), not normalised."""
        return self.visual(image)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(B, L) token ids to embeddings (B, C), not normalised."""
        return self.text(tokens)

    def with_config(self, config: CLIPConfig) -> CLIP:
        """The same weights, shared, under a configuration that changes no shape.

        For code that ran weights with another activation or epsilon than they were trained with.
        """
        other = CLIP.without_values(config)
        other.load_state_dict(self.state_dict(keep_vars=True), assign=True)
        other.mean, other.std = self.mean, self.std
        return other.train(self.training)


@cache
def _table() -> dict[str, dict[str, Any]]:
    """open_clip's architecture files by name, read without importing open_clip (which takes seconds)."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("open_clip is not installed: pip install 'open_clip_torch>=3.3,<4'")
    folder = Path(spec.submodule_search_locations[0]) / "model_configs"
    table = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    return {name: cfg for name, cfg in table.items() if not _unsupported(cfg)}


# What of open_clip's configuration is understood, or changes nothing in a forward pass in evaluation mode.
_VISION = {
    "layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "ls_init_value",
    "patch_dropout", "no_ln_pre", "pool_type", "final_ln_after_pool", "act_kwargs", "norm_kwargs",
}  # fmt: skip
_TEXT = {
    "context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "ls_init_value", "pool_type",
    "eos_id", "pad_id", "no_causal_mask", "act_kwargs", "norm_kwargs", "hf_tokenizer_name",
    "tokenizer_kwargs",
}  # fmt: skip


def _unsupported(cfg: Mapping[str, Any]) -> list[str]:
    """Options that make it something else than a plain CLIP ViT or ResNet."""
    vision, text = cfg["vision_cfg"], cfg["text_cfg"]
    odd = [f"vision_cfg.{key}" for key, value in vision.items() if value and key not in _VISION]
    odd += [f"text_cfg.{key}" for key, value in text.items() if value and key not in _TEXT]
    odd += [key for key in ("multimodal_cfg", "init_logit_bias") if cfg.get(key) is not None]
    if vision.get("pool_type", "tok") != "tok" and not vision.get("final_ln_after_pool"):
        odd.append("vision_cfg.pool_type without final_ln_after_pool")
    return odd


def list_architectures() -> list[str]:
    """Names of open_clip's plain CLIP ViT and ResNet architectures."""
    return list(_table())


def architecture(name: str | Mapping[str, Any]) -> CLIPConfig:
    """The configuration of an architecture.

    Args:
        name: A name of open_clip's table ("ViT-B-16-quickgelu", "RN50"), or a mapping in the layout of its
            JSON files.

    Raises:
        ValueError: The name is unknown, or not a plain CLIP ViT or ResNet; near names are listed.
    """
    if isinstance(name, str):
        if name not in _table():
            near = difflib.get_close_matches(name, _table(), n=4, cutoff=0.4)
            raise ValueError(f"unknown CLIP architecture {name!r}; near: {', '.join(near) or 'none'}")
        cfg, label = _table()[name], name
    else:
        cfg, label = dict(name), ""
        if odd := _unsupported(cfg):
            raise ValueError(
                f"only plain CLIP ViT and ResNet architectures are supported; this one has {', '.join(odd)}"
            )
    activation: Activation = "quick_gelu" if cfg.get("quick_gelu") else "gelu"
    vision = _vision_config(cfg["vision_cfg"], cfg["embed_dim"], activation)
    return CLIPConfig(vision, _text_config(cfg["text_cfg"], cfg["embed_dim"], activation), label)


def _vision_config(v: Mapping[str, Any], output_dim: int, activation: Activation) -> ViTConfig | ResNetConfig:
    size = v.get("image_size", 224)
    size = (size, size) if isinstance(size, int) else tuple(size)
    width = v.get("width", 768)
    if isinstance(v["layers"], (list, tuple)):
        heads = width * 32 // v.get("head_width", 64)
        return ResNetConfig(tuple(v["layers"]), width, heads, size[0], output_dim)
    blocks = BlockConfig(
        width=width,
        layers=v["layers"],
        heads=width // v.get("head_width", 64),
        mlp_width=int(width * v.get("mlp_ratio", 4.0)),
        activation=_activation(v, activation),
        ln_eps=v.get("norm_kwargs", {}).get("eps", 1e-5),
        layer_scale=v.get("ls_init_value") is not None,
    )
    return ViTConfig(
        blocks, v["patch_size"], size, output_dim,
        pre_norm=not v.get("no_ln_pre", False), pool=v.get("pool_type", "tok"),
    )  # fmt: skip


def _text_config(t: Mapping[str, Any], output_dim: int, activation: Activation) -> TextConfig:
    width = t.get("width", 512)
    blocks = BlockConfig(
        width=width,
        layers=t.get("layers", 12),
        heads=t.get("heads", 8),
        mlp_width=int(width * t.get("mlp_ratio", 4.0)),
        activation=_activation(t, activation),
        ln_eps=t.get("norm_kwargs", {}).get("eps", 1e-5),
        layer_scale=t.get("ls_init_value") is not None,
    )
    return TextConfig(
        blocks, t.get("vocab_size", 49408), t.get("context_length", 77), output_dim,
        pool=t.get("pool_type", "argmax"), eos_id=t.get("eos_id", 2),
        causal=not t.get("no_causal_mask", False),
    )  # fmt: skip


def _activation(cfg: Mapping[str, Any], default: Activation) -> Activation:
    return "gelu_tanh" if cfg.get("act_kwargs", {}).get("approximate") == "tanh" else default
