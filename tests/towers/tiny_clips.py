"""Tiny random CLIPs in every published layout, made by the tests themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ovseg.towers.clip import CLIP, architecture

VIT: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 64, "layers": 2, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
RESNET: dict[str, Any] = {
    **VIT,
    "vision_cfg": {"image_size": 64, "width": 16, "layers": [1, 1, 1, 1], "head_width": 64},
}


def tiny_clip(cfg: dict[str, Any] = VIT, seed: int = 0) -> CLIP:
    """A CLIP of ours with random weights, in evaluation mode."""
    torch.manual_seed(seed)
    model = CLIP(architecture(cfg)).eval()
    randomise(model)
    return model


def randomise(model: nn.Module) -> None:
    """Moves what initialises to zeros, ones or almost nothing, so that a mix-up of parameters shows."""
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.dim() == 1 and value.is_floating_point():
                value.add_(torch.rand_like(value) * 0.2)
            elif name.endswith("positional_embedding"):
                value.add_(torch.randn_like(value) * 0.1)


def flat(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's flat layout, spelt out here on purpose."""
    return {(k[5:] if k.startswith("text.") else k): v.clone() for k, v in state_dict.items()}


def save_openai_archive(state_dict: dict[str, Tensor], path: Path, image_size: int = 64) -> None:
    """A TorchScript archive as OpenAI publishes: fp16, flat names, three scalar buffers."""
    root = nn.Module()
    for name, value in flat(state_dict).items():
        *parents, leaf = name.split(".")
        module = root
        for part in parents:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
        half = value.half() if value.is_floating_point() else value
        if "running" in leaf or "num_batches" in leaf:
            module.register_buffer(leaf, half)
        else:
            module.register_parameter(leaf, nn.Parameter(half))
    scalars = (("input_resolution", image_size), ("context_length", 16), ("vocab_size", 49408))
    for name, number in scalars:
        root.register_buffer(name, torch.tensor(number))
    torch.jit.save(torch.jit.script(root), str(path))


def save_embedded(model: CLIP, folder: Path, name: str, cfg: dict[str, Any] = VIT) -> Path:
    """Weights and configuration as the package carries them: flat, fp16, with a card."""
    path = folder / f"{name}.safetensors"
    half = {k: v.half() if v.is_floating_point() else v for k, v in flat(model.state_dict()).items()}
    save_file({k: v.contiguous() for k, v in half.items()}, path)
    config = {
        "model_cfg": cfg,
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
        "card": {"licence": "CC-BY-4.0", "background_words": ["white paper"]},
    }
    path.with_suffix(".json").write_text(json.dumps(config))
    return path
