"""open_clip's own models from its own architecture files, cut in depth, with random weights that show mistakes."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

VOCABULARY = 500  # the largest of the table has 900,000 rows, which no test needs


def cut_config(name: str, depth: int = 2) -> dict[str, Any]:
    """An architecture of open_clip's table with ``depth`` blocks in both towers (ResNet: 1 per stage)."""
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None and spec.submodule_search_locations
    file = Path(spec.submodule_search_locations[0]) / "model_configs" / f"{name}.json"
    cfg = copy.deepcopy(json.loads(file.read_text()))
    resnet = isinstance(cfg["vision_cfg"]["layers"], list)
    cfg["vision_cfg"]["layers"] = [1, 1, 1, 1] if resnet else depth
    cfg["text_cfg"] |= {"layers": depth, "vocab_size": VOCABULARY}
    return cfg


def reference(cfg: dict[str, Any], seed: int = 0) -> nn.Module:
    """open_clip's model of a configuration, in evaluation mode. Made on the meta device: its own random values
    take longer than the whole test."""
    from open_clip.model import CLIP

    with torch.device("meta"):
        model = CLIP(
            cfg["embed_dim"], cfg["vision_cfg"], cfg["text_cfg"], quick_gelu=cfg.get("quick_gelu", False)
        )
    model = model.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            _fill(name, value, generator)
        for name, value in model.named_buffers():
            if name == "attn_mask":
                value.fill_(float("-inf")).triu_(1)
            elif value.is_floating_point():
                value.uniform_(0.5, 1.5, generator=generator)
            else:
                value.zero_()
    return model


def _fill(name: str, value: torch.Tensor, generator: torch.Generator) -> None:
    if value.dim() == 0:
        value.fill_(4.6)
    elif value.dim() == 1:
        value.uniform_(-0.2, 0.2, generator=generator)
        if name.endswith(("weight", "gamma")):
            value.add_(1)
    elif "embedding" in name:
        value.normal_(std=0.3, generator=generator)
    else:
        fan_in = value[0].numel() if value.dim() == 4 else value.shape[-1]
        value.normal_(std=fan_in**-0.5, generator=generator)


def random_tokens(cfg: dict[str, Any], batch: int = 3, seed: int = 0) -> torch.Tensor:
    """Prompts of different lengths: start, words, end of text (the highest id, or ``eos_id``), zeros."""
    text = cfg["text_cfg"]
    generator = torch.Generator().manual_seed(seed)
    length, end = text["context_length"], VOCABULARY - 1
    if text.get("pool_type") == "eos":
        end = text["eos_id"]
    tokens = torch.zeros(batch, length, dtype=torch.long)
    for i in range(batch):
        words = 3 + 4 * i
        tokens[i, : words + 1] = torch.randint(3, VOCABULARY - 2, (words + 1,), generator=generator)
        tokens[i, words + 1] = end
    return tokens


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / x.norm(dim=-1, keepdim=True)
