"""Weights of models that were trained as a whole: the tuned towers, and the method's learned parts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ovseg.methods.method import Method
from ovseg.methods.registry import get_method, list_methods
from ovseg.towers.checkpoints import CheckpointError, check_fits, read_state_dict
from ovseg.towers.clip import CLIPConfig, architecture
from ovseg.towers.clip_vit import ViTConfig
from ovseg.towers.download import fetch_weights
from ovseg.towers.infer import HEAD_WIDTH, infer_config
from ovseg.towers.layers import Activation
from ovseg.towers.table import TowerInfo
from ovseg.towers.text import TextConfig
from ovseg.towers.tokenizer import Tokenizer
from ovseg.towers.weights import LoadedClip, build_clip, load_clip

__all__ = ["Trained", "find_method", "load_trained"]

_CLIP = "clip."


@dataclass(frozen=True)
class Trained:
    """A trained model's weights, its CLIP already built.

    Attributes:
        clip: The tuned towers.
        state_dict: Of the whole model, in our layout.
    """

    clip: LoadedClip
    state_dict: Mapping[str, Tensor]

    def fill(self, model: nn.Module) -> None:
        """Puts the weights into the model that was built around ``clip``.

        Raises:
            CheckpointError: Names or shapes differ.
        """
        check_fits(self.state_dict, model, self.clip.info.name)
        model.load_state_dict(self.state_dict)


def find_method(path: str | os.PathLike[str]) -> str | None:
    """Name of the method whose trained model a checkpoint holds; None for those of bare towers.

    Raises:
        CheckpointError: The file is damaged.
    """
    stored = read_state_dict(Path(path))
    return next((name for name in list_methods() if get_method(name).owns(stored)), None)


def load_trained(
    method: type[Method], weights: Any, allow_download: bool = True, activation: Activation | None = None
) -> Trained | None:
    """The weights of a trained model of a method, by the name in ``Method.trained`` or from a file.

    Args:
        method: The method.
        weights: As for ``ovseg.build``.
        allow_download: False to fail where the weights are not on this machine.
        activation: Of the towers in a file that is in no table; by default OpenAI's, as all published ones
            have it.

    Returns:
        None if ``weights`` are those of a bare CLIP.

    Raises:
        WeightsUnavailableError: The weights are not here and cannot be fetched; says what to put where.
        CheckpointError: The file is damaged or does not fit.
    """
    if not method.trained or not isinstance(weights, str | os.PathLike):
        return None
    info = method.trained.get(os.fspath(weights))
    path = Path(weights) if info is None else fetch_weights(info, allow_download=allow_download)
    if not path.is_file():
        return None
    stored = read_state_dict(path)
    if not method.owns(stored):
        if info is None:
            return None
        raise CheckpointError(f"{path} is no checkpoint of {method.title}; fetch or copy it again")
    state_dict = method.convert(stored)
    base = _base(method, info, state_dict)
    info = info or TowerInfo(path.stem, "", sources=(str(path),))
    if base:
        return _completed(base, state_dict, info, allow_download)
    return Trained(_clip(state_dict, info, activation or "quick_gelu"), state_dict)


def _base(method: type[Method], info: TowerInfo | None, state_dict: Mapping[str, Tensor]) -> str:
    """Name of the CLIP weights that a file completes, "" if it is whole.

    Of a file that is in no table, the learned parts alone belong to the tower of the published ones.
    """
    if info is not None:
        return info.base
    if any(name.startswith(_CLIP) for name in state_dict):
        return ""
    return next((known.base for known in method.trained.values() if known.base), "")


def _completed(base: str, learned: Mapping[str, Tensor], info: TowerInfo, allow_download: bool) -> Trained:
    """A file that holds what was learned; the rest of the towers is as published."""
    loaded = load_clip(base, allow_download=allow_download)
    weights = {_CLIP + name: value for name, value in loaded.model.state_dict().items()}
    return Trained(replace(loaded, info=replace(loaded.info, name=info.name)), {**weights, **learned})


def _clip(state_dict: Mapping[str, Tensor], info: TowerInfo, activation: Activation) -> LoadedClip:
    """The CLIP inside a model."""
    weights = {
        name.removeprefix(_CLIP): value for name, value in state_dict.items() if name.startswith(_CLIP)
    }
    config = architecture(info.arch) if info.arch else _inferred(weights, info.name, activation)
    model = build_clip(config, weights, info.name)
    return LoadedClip(model, Tokenizer(config.text.context_length), info)


def _inferred(weights: Mapping[str, Tensor], name: str, activation: Activation) -> CLIPConfig:
    """The architecture of towers of unknown origin. Shapes do not tell heads: only usual ones are taken."""
    cure = "its training's config knows: `ovseg convert CHECKPOINT OUT.safetensors --config CONFIG`"
    try:
        config = infer_config(weights, activation)
    except ValueError as error:
        raise CheckpointError(
            f"the towers in {name} cannot be told from its weights ({error}); {cure}"
        ) from error
    widths = [
        part.blocks.width for part in (config.vision, config.text) if isinstance(part, ViTConfig | TextConfig)
    ]
    for width in widths:
        if width > HEAD_WIDTH and width % HEAD_WIDTH:
            raise CheckpointError(f"{name} does not tell how many heads a tower of width {width} has; {cure}")
    return config
