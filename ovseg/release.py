"""Release files: one ``model.safetensors`` that holds a whole model and says in plain JSON what it is.

The header names a method and its fields from an allow-list, the architecture of the towers, normalisation,
vocabulary and protocol. Loading one builds known parts from these data; nothing in a release is executed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from ovseg._files import atomic_path
from ovseg.dense.windows import Pad
from ovseg.inference.protocol import Protocol, Resize
from ovseg.inference.steps import step_from_dict, step_to_dict
from ovseg.towers.checkpoints import CheckpointError, check_fits, read_state_dict
from ovseg.towers.clip import CLIP, CLIPConfig
from ovseg.towers.clip_resnet import ResNetConfig
from ovseg.towers.clip_vit import ViTConfig
from ovseg.towers.layers import BlockConfig
from ovseg.towers.table import TowerInfo
from ovseg.towers.text import TextConfig
from ovseg.towers.tokenizer import Tokenizer
from ovseg.towers.weights import LoadedClip
from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["Recipe", "Release", "is_release", "read_release", "write_release"]

FORMAT = 1
_KEY = "ovseg"


@dataclass(frozen=True)
class Recipe:
    """How ``ovseg.build`` made a model.

    Attributes:
        method: Name of the method.
        settings: Fields of the method, of its readout and of the tower; JSON values.
        affinity: As given to ``build``.
    """

    method: str
    settings: Mapping[str, Any]
    affinity: str | None = None


@dataclass(frozen=True)
class Release:
    """What a release file says.

    Attributes:
        recipe: How the model is built.
        clip: The towers, without their weights.
        protocol: Settings of inference.
        vocabulary: The classes it was made for, or None.
        path: The file.
    """

    recipe: Recipe
    clip: LoadedClip
    protocol: Protocol
    vocabulary: Vocabulary | None
    path: Path

    def fill(self, model: nn.Module) -> None:
        """Puts the weights into the model that was built from ``recipe`` around ``clip``.

        Raises:
            CheckpointError: Names or shapes differ, or the file is damaged.
        """
        state_dict = read_state_dict(self.path)
        check_fits(state_dict, model, str(self.path))
        model.load_state_dict(state_dict, assign=True)
        model.float()


def write_release(
    path: str | os.PathLike[str],
    model: nn.Module,
    recipe: Recipe,
    clip: LoadedClip,
    protocol: Protocol,
    vocabulary: Vocabulary | None = None,
) -> Path:
    """Writes a model, atomically.

    Args:
        path: Where to; by custom ``model.safetensors``.
        model: All its tensors are stored, in their own types. Auxiliary towers are named, not stored.
        recipe: How it was built.
        clip: The towers inside it.
        protocol: Settings of inference.
        vocabulary: Classes to load it with.

    Raises:
        WriteError: The file cannot be written.
    """
    header = {
        "format": FORMAT,
        "method": recipe.method,
        "settings": dict(recipe.settings),
        "affinity": recipe.affinity,
        "towers": asdict(clip.model.config),
        "info": {**asdict(clip.info), "sources": []},
        "protocol": _protocol_to_dict(protocol),
        "vocabulary": vocabulary.to_dict() if vocabulary is not None else None,
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {"format": "pt", _KEY: json.dumps(header, default=asdict)})
    return Path(path)


def is_release(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a release."""
    return _header(Path(path)) is not None


def read_release(path: str | os.PathLike[str]) -> Release:
    """Reads what a release file says; its weights stay there until ``Release.fill``.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is no release, was written by a newer version, or names things that do not exist.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no release file at {path}")
    header = _header(path)
    if header is None:
        raise CheckpointError(
            f"{path} is no release of ovseg; weights of a bare CLIP go to ovseg.build(tower=...)"
        )
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has release format {header.get('format')!r}, this version of ovseg reads {FORMAT}; "
            f"update one of them"
        )
    try:
        config = _config(header["towers"])
        model = CLIP.without_values(config)
        info = TowerInfo(**_tuples(header["info"]))
        vocabulary = header["vocabulary"]
        return Release(
            Recipe(header["method"], _tuples(header["settings"]), header["affinity"]),
            LoadedClip(model, Tokenizer(config.text.context_length), replace(info, sources=(str(path),))),
            _protocol_from_dict(header["protocol"]),
            Vocabulary.from_dict(vocabulary) if vocabulary is not None else None,
            path,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: its header is not valid ({type(error).__name__}: {error})") from error


def _header(path: Path) -> dict[str, Any] | None:
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
        header = json.loads(text) if text else None
    except (SafetensorError, OSError, ValueError):
        return None
    return header if isinstance(header, dict) else None


def _config(data: Mapping[str, Any]) -> CLIPConfig:
    """Inverse of ``asdict`` for a CLIPConfig."""

    def tower(values: Mapping[str, Any], kind: type[Any]) -> Any:
        values = _tuples(values)
        if "blocks" in values:
            values["blocks"] = BlockConfig(**values["blocks"])
        return kind(**values)

    vision = data["vision"]
    kind = ViTConfig if "blocks" in vision else ResNetConfig
    return CLIPConfig(tower(vision, kind), tower(data["text"], TextConfig), data["name"])


def _protocol_to_dict(protocol: Protocol) -> dict[str, Any]:
    return {**asdict(protocol), "steps": [step_to_dict(step) for step in protocol.steps]}


def _protocol_from_dict(data: Mapping[str, Any]) -> Protocol:
    values = {**data, "resize": Resize(**data["resize"])}
    values["pad"] = Pad(**data["pad"]) if data["pad"] is not None else None
    values["steps"] = tuple(step_from_dict(step) for step in data["steps"])
    values["fields"] = _tuples(data["fields"])
    if isinstance(data["templates"], list):
        values["templates"] = tuple(data["templates"])
    known = {field.name for field in fields(Protocol)}
    if set(values) - known:
        raise ValueError(f"unknown protocol settings: {', '.join(sorted(set(values) - known))}")
    return Protocol(**values)


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has lists only; our settings are hashable."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
