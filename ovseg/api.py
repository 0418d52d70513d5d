"""``load`` and ``build``: from names to a predictor."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from typing import Any

import torch

from ovseg.dense import attention
from ovseg.dense.features import DenseFeatures
from ovseg.inference.images import ImageSource
from ovseg.inference.predictor import Predictor
from ovseg.inference.protocol import Protocol
from ovseg.methods.method import Method
from ovseg.methods.registry import default_protocol, get_method, nearest, zoo_row
from ovseg.methods.trained import Trained, load_trained
from ovseg.release import Recipe, Release, read_release
from ovseg.towers.clip_vit import ViTConfig
from ovseg.towers.weights import LoadedClip, is_path, load_clip

__all__ = ["build", "features", "load"]

_READOUT_FIELDS = {"residual", "mlp", "last_blocks", "stream", "pos_embed", "drop_cls"}
_TOWER_FIELDS = {"activation", "ln_eps"}


def load(
    name: str | os.PathLike[str],
    *,
    protocol: str | Protocol | None = None,
    device: str = "auto",
    dtype: torch.dtype | str | None = None,
    batch_size: int | None = None,
) -> Predictor:
    """A model of the zoo, or from a release file.

    Args:
        name: ``<method>_<tower>.<tag>``, e.g. "maskclip_vit_b16.openai" (see ``list_models``), or the path of
            a file that ``Predictor.save`` wrote.
        protocol: A protocol, or the name of one of the method's, e.g. "voc20" for the settings behind the
            published number; by default settings for users' own images.
        device: ``auto`` for a GPU if there is one, or a torch device.
        dtype: Of the visual tower, e.g. "bfloat16"; float32 by default.
        batch_size: Windows per forward.

    Raises:
        ValueError: The name or the protocol is unknown (near ones are listed).
        WeightsUnavailableError: The weights are not on this machine and cannot be fetched.
        CheckpointError: The file is no release, or is damaged.
    """
    if not isinstance(name, str) or name.endswith(".safetensors"):
        return _load_release(read_release(name), protocol, device, dtype, batch_size)
    row = zoo_row(name)
    return build(
        row.method, row.tower, protocol=protocol or row.protocol.name, device=device, dtype=dtype,
        batch_size=batch_size,
    )  # fmt: skip


def build(
    method: str,
    tower: str | os.PathLike[str] | LoadedClip | Release,
    *,
    affinity: str | None = None,
    protocol: str | Protocol | None = None,
    device: str = "auto",
    dtype: torch.dtype | str | None = None,
    batch_size: int | None = None,
    **fields: Any,
) -> Predictor:
    """A model from parts.

    Args:
        method: Name of a method; see ``list_methods``.
        tower: Name of weights ("vit_b16.openai"), a weight file or folder, a loaded CLIP, or a release.
        affinity: Attention of the last blocks instead of the method's, by the name of a function in
            ``ovseg.dense.attention``, e.g. "key_key".
        protocol: A protocol, or the name of one of the method's.
        device: ``auto`` for a GPU if there is one, or a torch device.
        dtype: Of the visual tower, e.g. "bfloat16"; float32 by default.
        batch_size: Windows per forward.
        **fields: Settings of the method (``key_smoothing=1.0``), of its readout (``residual="none"``,
            ``mlp=False``), or of the tower (``activation``, which weight files need that do not name theirs;
            ``ln_eps``).

    Raises:
        ValueError: A name or a field is unknown, or parts do not fit.
        WeightsUnavailableError: The weights are not on this machine and cannot be fetched.
    """
    cls = get_method(method)
    chosen = _protocol(cls, protocol, tower)
    known = {field.name for field in dataclass_fields(cls)}
    settings = {**chosen.fields, **fields}
    _check_fields(method, settings, known | _READOUT_FIELDS | _TOWER_FIELDS)
    target, kind = _device(device), _dtype(dtype)
    weights = (
        tower if isinstance(tower, Release) else load_trained(cls, tower, activation=fields.get("activation"))
    )
    if isinstance(weights, Trained):
        settings = {**cls.fields_of(weights.state_dict), **settings}
    clip = weights.clip if weights else _clip(tower, fields.get("activation"))
    clip = _with_tower_fields(clip, {key: settings[key] for key in _TOWER_FIELDS & set(settings)})
    instance = cls(**{key: settings[key] for key in known & set(settings)})
    changes = {key: settings[key] for key in _READOUT_FIELDS & set(settings)}
    if affinity is not None:
        changes["attention"] = _attention(affinity)
    model = instance.build(clip.model, replace(instance.readout, **changes)).eval()
    if weights:
        weights.fill(model)
    elif cls.trained and any(not name.startswith("clip.") for name in model.state_dict()):
        rows = ", ".join(f"{method}_{name}" for name in cls.trained)
        warnings.warn(f"{cls.title}'s head is untrained here; ovseg.load has {rows}", stacklevel=2)
    model.to(target)
    clip.model.visual.to(kind)
    own = clip.info.name
    name = own if own.startswith(f"{method}_") else f"{method}_{own}"
    recipe = Recipe(method, settings, affinity)
    return Predictor(model, clip, chosen, name=name, batch_size=batch_size, dtype=kind, recipe=recipe)


def _load_release(
    release: Release,
    protocol: str | Protocol | None,
    device: str,
    dtype: torch.dtype | str | None,
    batch_size: int | None,
) -> Predictor:
    recipe = release.recipe
    predictor = build(
        recipe.method,
        release,
        affinity=recipe.affinity,
        protocol=protocol or release.protocol,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        **recipe.settings,
    )
    if release.vocabulary is not None:
        predictor.set_vocabulary(release.vocabulary)
    return predictor


def features(
    source: ImageSource,
    tower: str | os.PathLike[str] | LoadedClip,
    method: str = "maskclip",
    **settings: Any,
) -> DenseFeatures:
    """Dense features (1, C, h, w) of one image. For many images, keep what ``build`` returns.

    Args:
        source: See ``read_image``.
        tower: See ``build``.
        method: Name of a method.
        **settings: Of ``build``.
    """
    return build(method, tower, **settings).features(source)


def _check_fields(method: str, settings: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ValueError(f"{method} has no field {unknown[0]!r}; {nearest(unknown[0], sorted(known))}")


def _protocol(cls: type[Method], protocol: str | Protocol | None, tower: Any) -> Protocol:
    if isinstance(protocol, Protocol):
        return protocol
    name = protocol or (default_protocol(cls, tower) if isinstance(tower, str) else "default")
    if name not in cls.protocols:
        raise ValueError(f"{cls.name} has no protocol {name!r}; {nearest(name, cls.protocols)}")
    return cls.protocols[name]


def _clip(tower: Any, activation: Any) -> LoadedClip:
    """The towers; a file that does not name its activation takes the one that was given."""
    if isinstance(tower, LoadedClip):
        return tower
    return load_clip(tower, activation=activation if is_path(tower) else None)


def _with_tower_fields(clip: LoadedClip, changes: dict[str, Any]) -> LoadedClip:
    """The CLIP with another activation or epsilon in its ViT (a ResNet has neither), weights shared."""
    config = clip.model.config
    if not changes or not isinstance(config.vision, ViTConfig):
        return clip
    return replace(clip, model=clip.model.with_config(config.with_vision(**changes)))


def _attention(name: str) -> Any:
    functions = [n for n in attention.__all__ if hasattr(getattr(attention, n), "inputs")]
    if name not in functions:
        raise ValueError(f"unknown affinity {name!r}; {nearest(name, functions)}")
    return getattr(attention, name)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used here ({reason}); try 'cpu'") from error
    return device


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    kind = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype or torch.float32
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise ValueError(f"unknown dtype {dtype!r}; one of float32, bfloat16, float16")
    return kind
