"""From a training to embedded weights in half precision: a CLIP with its model card, or a head on a CLIP."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from safetensors.torch import save_file
from torch import Tensor, nn

from ovseg._files import atomic_path
from ovseg.datasets.emoji import ARTISTS, WordTable, word_table
from ovseg.towers.converters import to_open_clip
from ovseg.towers.weights import load_clip
from ovseg.training.clip_pretraining import CLIPPretrainer
from ovseg.training.curves import read_curves

__all__ = ["export_learned", "export_tower", "full_state_dict", "load_pretrainer", "model_card"]

_LICENCE = "Apache-2.0 (weights); the drawings it learned from: Apache-2.0, MIT, CC-BY-4.0, see attribution"


def load_pretrainer(config: str | Path | Config, checkpoint: str | Path) -> CLIPPretrainer:
    """The model of a training, with the (averaged) weights of a checkpoint, in evaluation mode.

    Raises:
        ValueError: The checkpoint was made with other words.
    """
    cfg = config if isinstance(config, Config) else Config.fromfile(str(config))
    arguments = {key: value for key, value in cfg.to_dict()["model"].items() if key != "type"}
    model = CLIPPretrainer(**arguments)
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    if state["token_ids"].tolist() != model.token_ids.tolist():
        raise ValueError(f"{checkpoint} was trained on other words than this version of EmojiScenes has")
    model.load_state_dict(state)
    return model.eval()


def full_state_dict(model: CLIPPretrainer, vocab_size: int = 49408) -> dict[str, Tensor]:
    """open_clip's flat layout with CLIP's whole token table; rows that were never trained are zero."""
    state = model.clip.state_dict()
    rows = state["text.token_embedding.weight"]
    table = rows.new_zeros(vocab_size, rows.shape[1])
    table[model.token_ids] = rows
    state["text.token_embedding.weight"] = table
    return to_open_clip(state)


def export_tower(
    config: str | Path | Config,
    checkpoint: str | Path,
    name: str,
    folder: str | Path,
    card: Mapping[str, Any],
) -> Path:
    """Writes ``<name>.safetensors`` and ``<name>.json`` as ``ovseg.towers`` reads them.

    The card holds the curves of the training, where its logs lie beside the checkpoint.

    Args:
        config: Of the training.
        checkpoint: Of ``AtomicRunner``.
        name: ``<tower>.<tag>``.
        folder: Where to.
        card: What the model card says beyond ``model_card``: figures, images seen.
    """
    cfg = config if isinstance(config, Config) else Config.fromfile(str(config))
    model = load_pretrainer(cfg, checkpoint)
    half = {key: _half(value) for key, value in full_state_dict(model).items()}
    settings = cfg.to_dict()["model"]
    described = {
        "model_cfg": settings["model"],
        "preprocess_cfg": {"mean": settings["mean"], "std": settings["std"]},
        "card": {
            **model_card(word_table(), settings["groups"]),
            **card,
            "curves": read_curves(Path(checkpoint).parent),
        },
    }
    path = Path(folder) / f"{name}.safetensors"
    with atomic_path(path) as temporary:
        save_file(half, temporary, metadata={"format": "pt"})
        temporary.chmod(0o644)  # safetensors leaves it to its owner
    with atomic_path(path.with_suffix(".json")) as temporary:
        temporary.write_text(_readable(described), encoding="utf-8")
    return path


def _half(value: Tensor) -> Tensor:
    """Counters stay whole."""
    return (value.half() if value.is_floating_point() else value).contiguous()


def _readable(described: Mapping[str, Any]) -> str:
    """JSON in lines, but lists of numbers on one each."""
    text = json.dumps(described, indent=1, ensure_ascii=False)
    return re.sub(r"\[\s+([-+.\de,\s]+?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def export_learned(model: nn.Module, base: str, path: str | Path) -> Path:
    """Writes what a model learned: everything but the tensors that its CLIP shares with published weights.

    ``Method.trained`` names such a file with ``TowerInfo.base``.

    Args:
        model: What ``Method.build`` returns; its CLIP is ``model.clip``.
        base: Name of the CLIP weights that its training started from.
        path: Where to; half precision.
    """
    published = {f"clip.{key}": value for key, value in load_clip(base).model.state_dict().items()}
    learned = {
        key: value.detach().half().contiguous()
        for key, value in model.state_dict().items()
        if key not in published or not torch.equal(value.cpu(), published[key])
    }
    with atomic_path(path) as temporary:
        save_file(learned, temporary, metadata={"format": "pt"})
        temporary.chmod(0o644)
    return Path(path)


def model_card(table: WordTable, groups: list[Any]) -> dict[str, Any]:
    """What holds for every tower trained on EmojiScenes."""
    learned = [artist for artist in ARTISTS if artist.split == "train"]
    return {
        "licence": _LICENCE,
        "background_words": list(table.textures),
        "words": {group: list(table.names(group)) for group in groups},
        "textures": list(table.textures),
        "limits": "Knows drawings of these words on these textures, not photographs. For demos and tests.",
        "attribution": list(dict.fromkeys(f"{artist.attribution}" for artist in learned)),
        "drawings": {artist.package: f"{artist.version}, {artist.licence}" for artist in learned},
    }
