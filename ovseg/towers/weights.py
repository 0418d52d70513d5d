"""Loading CLIP weights: by name, from a file, or from a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ovseg.towers.checkpoints import CheckpointError, check_fits, read_state_dict
from ovseg.towers.clip import CLIP, CLIPConfig, architecture
from ovseg.towers.converters import convert, recognise
from ovseg.towers.download import fetch_weights
from ovseg.towers.infer import config_from_hf, infer_config
from ovseg.towers.layers import Activation
from ovseg.towers.table import TowerInfo, info_from_config, list_towers, tower_info
from ovseg.towers.tokenizer import Tokenizer

__all__ = ["LoadedClip", "TowerInfo", "build_clip", "is_path", "list_towers", "load_clip", "tower_info"]

_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_OPEN_CLIP_CONFIG = "open_clip_config.json"
# Of a folder: the configuration, and the weight files in the order in which they are looked for.
_FOLDERS = {
    _OPEN_CLIP_CONFIG: ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
    "config.json": ("model.safetensors", "pytorch_model.bin"),
}


@dataclass(frozen=True)
class LoadedClip:
    """A CLIP with its weights, the tokenizer of its text tower, and what is known about it."""

    model: CLIP
    tokenizer: Tokenizer
    info: TowerInfo

    def __post_init__(self) -> None:
        self.model.mean, self.model.std = self.info.mean, self.info.std


def load_clip(
    name_or_path: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    allow_download: bool = True,
    arch: str | None = None,
    activation: Activation | None = None,
) -> LoadedClip:
    """Loads a CLIP.

    Args:
        name_or_path: A name (``list_towers``), or a path: a weight file of open_clip (.pt, .bin,
            .safetensors), an OpenAI archive, a folder with a Hugging Face ``CLIPModel`` or a model of
            open_clip with its configuration.
        device: Where the model goes.
        dtype: Of its parameters; None for float32, whatever the file holds.
        allow_download: False to fail where the weights are not on this machine.
        arch: Only for files: open_clip's name of the architecture; by default it is told from the
            configuration beside the weights, or from their shapes.
        activation: Only needed for files that neither come with a configuration nor are OpenAI's: the
            activation leaves no trace in the weights. For others it is checked.

    Returns:
        The model in evaluation mode, its tokenizer, and its facts.

    Raises:
        ValueError: An unknown name (near ones are listed), an activation that is wrong for these weights or
            missing, a damaged, foreign or unsafe file (``CheckpointError``).
        FileNotFoundError: No such file.
        WeightsUnavailableError: The weights are not here and cannot be fetched; says what to put where.
    """
    if is_path(name_or_path):
        info, config, weights = _from_path(Path(name_or_path), arch, activation)
    else:
        if arch is not None:
            raise ValueError(f"{name_or_path!r} fixes the architecture; arch= is for weight files")
        info, config, weights = _from_name(str(name_or_path), activation, allow_download)
    tokenizer = _tokenizer(config, info.name)
    return LoadedClip(build_clip(config, weights, info.name, device, dtype), tokenizer, info)


def build_clip(
    config: CLIPConfig,
    state_dict: Mapping[str, Tensor],
    origin: str,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> CLIP:
    """A CLIP with the given weights, strictly loaded; no memory or time goes into initial values.

    Args:
        config: Its architecture.
        state_dict: In our layout.
        origin: Named in errors.
        device: Where the model goes.
        dtype: Of its parameters; None for float32.

    Raises:
        CheckpointError: Names or shapes differ.
    """
    model = CLIP.without_values(config)
    check_fits(state_dict, model, origin)
    model.load_state_dict(state_dict, assign=True)
    return model.to(device=device, dtype=dtype or torch.float32).eval()


_Source = tuple[TowerInfo, CLIPConfig, Mapping[str, Tensor]]


def is_path(name_or_path: str | os.PathLike[str]) -> bool:
    """Whether weights are named by a file or folder rather than by a name of the table."""
    if not isinstance(name_or_path, str):
        return True
    looks = os.sep in name_or_path or "/" in name_or_path or name_or_path.endswith(_SUFFIXES)
    return looks or (name_or_path not in list_towers() and Path(name_or_path).exists())


def _from_name(name: str, activation: Activation | None, allow_download: bool) -> _Source:
    info = tower_info(name)
    _check_activation(info.name, info.activation, activation)
    if info.arch:
        path, config = fetch_weights(info, allow_download=allow_download), architecture(info.arch)
    else:  # embedded: the configuration lies beside the weights
        path = Path(info.source)
        config = architecture(_json(path.with_suffix(".json"))["model_cfg"])
    return info, config, convert(read_state_dict(path))


def _from_path(path: Path, arch: str | None, activation: Activation | None) -> _Source:
    weights, config_file = _weight_file(path)
    stored = read_state_dict(weights)
    layout, state_dict = _converted(stored, weights)
    name = path.name if path.is_dir() else path.stem
    if arch is not None:
        config = architecture(arch)
        info = replace(_info(name, config, weights), arch=arch)
    elif config_file is None:
        config = infer_config(state_dict, _activation_of(layout, activation, weights))
        info = _info(name, config, weights)
    elif layout == "hf_clip":
        config = config_from_hf(_json(config_file))
        info = replace(_info(name, config, weights), **_hf_normalisation(config_file.parent))
    else:
        info = info_from_config(name, _json(config_file), (str(weights),))
        config = architecture(_json(config_file)["model_cfg"])
    _check_activation(str(weights), info.activation, activation)
    return info, config, state_dict


def _converted(stored: Mapping[str, Tensor], path: Path) -> tuple[str, Mapping[str, Tensor]]:
    try:
        return recognise(stored), convert(stored)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _weight_file(path: Path) -> tuple[Path, Path | None]:
    """The weights at a path, and the configuration that belongs to them, if there is one."""
    if not path.is_dir():
        beside = (
            path.with_suffix(".json"),
            *(path.parent / c for c, w in _FOLDERS.items() if path.name in w),
        )
        return path, next((config for config in beside if config.is_file()), None)
    for config, weights in _FOLDERS.items():
        if (path / config).is_file():
            for weight in weights:
                if (path / weight).is_file():
                    return path / weight, path / config
            wanted = " or ".join(weights)
            raise FileNotFoundError(f"{path} holds {config} but no {wanted}; join shards into one file")
    raise FileNotFoundError(f"{path} holds neither {' nor '.join(_FOLDERS)}; give the weight file itself")


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is no valid JSON ({error}); fetch or copy it again") from error


def _hf_normalisation(folder: Path) -> dict[str, Any]:
    file = folder / "preprocessor_config.json"
    settings = _json(file) if file.is_file() else {}
    names = {"mean": "image_mean", "std": "image_std"}
    return {ours: tuple(settings[theirs]) for ours, theirs in names.items() if theirs in settings}


def _info(name: str, config: CLIPConfig, path: Path) -> TowerInfo:
    size = config.vision.image_size
    return TowerInfo(
        name, "", sources=(str(path),), activation=config.text.blocks.activation,
        image_size=size if isinstance(size, int) else max(size),
    )  # fmt: skip


def _activation_of(layout: str, given: Activation | None, path: Path) -> Activation:
    if layout == "openai":
        return "quick_gelu"
    if given is None:
        raise ValueError(
            f"the activation of {path} cannot be read from the file: give activation='quick_gelu' for "
            f"weights of OpenAI, MetaCLIP or DFN, 'gelu' for those of LAION or DataComp"
        )
    return given


def _check_activation(name: str, right: str, given: str | None) -> None:
    if given is not None and given != right:
        raise ValueError(
            f"{name} was trained with {right!r}; with {given!r} its features are wrong (to reproduce code "
            f"that did so, use model.with_config on the loaded model)"
        )


def _tokenizer(config: CLIPConfig, name: str) -> Tokenizer:
    if config.text.vocab_size != Tokenizer.vocab_size:
        raise ValueError(
            f"{name} has a vocabulary of {config.text.vocab_size} tokens; only CLIP's own byte pairs "
            f"({Tokenizer.vocab_size}) are supported"
        )
    return Tokenizer(config.text.context_length)
