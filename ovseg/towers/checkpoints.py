"""Reading weight files: tensors only, never code."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["CheckpointError", "check_fits", "read_state_dict"]

_FETCH_AGAIN = "fetch or copy it again"


class CheckpointError(ValueError):
    """A weight file cannot be used. The message names the file, the reason and the cure."""


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a weight file, as they are stored.

    Safetensors, PyTorch files (``torch.load(weights_only=True)``) and TorchScript archives such as OpenAI's
    are told apart by their content, not their name. Training checkpoints that wrap the weights in
    ``state_dict`` or prefix every name with ``module.`` are unwrapped.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: Empty, truncated, not a checkpoint, a pickle that wants to run code, no tensors, or
            values that are not finite.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weight file at {path}")
    with open(path, "rb") as file:
        head = file.read(16)
    if not head:
        raise CheckpointError(f"{path} is empty; {_FETCH_AGAIN}")
    if head[8:9] == b"{":
        loaded = _read_safetensors(path)
    elif head[:4] == b"PK\x03\x04":
        loaded = _read_archive(path)
    elif head[:1] == b"\x80":
        loaded = _read_pickle(path)
    else:
        raise CheckpointError(
            f"{path} is not a weight file: it is neither safetensors nor a PyTorch file (a web page saved "
            f"under that name, or a Git LFS pointer?); {_FETCH_AGAIN}"
        )
    return _checked(_unwrapped(loaded, path), path)


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged or truncated ({error}); {_FETCH_AGAIN}") from error


def _read_archive(path: Path) -> Mapping[str, Any]:
    """A zip: a TorchScript archive has code beside its constants, a saved state dict has not."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path} is damaged or truncated ({error}); {_FETCH_AGAIN}") from error
    if "constants.pkl" not in names:
        return _read_pickle(path)
    try:
        with warnings.catch_warnings():  # OpenAI publishes in this format, deprecated or not
            warnings.simplefilter("ignore")
            return torch.jit.load(path, map_location="cpu").state_dict()
    except RuntimeError as error:
        raise CheckpointError(f"{path} is a damaged TorchScript archive; {_FETCH_AGAIN}") from error


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():  # about the pickle protocol; what matters is raised
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} was refused: it holds more than tensors, and unpickling that could run code. If you "
            f"trust its origin, load it where that does no harm, with torch.load(path, weights_only=False), "
            f"and save its state dict with safetensors.torch.save_file"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged or truncated; {_FETCH_AGAIN}") from error


def _unwrapped(loaded: Any, path: Path) -> dict[str, Tensor]:
    for key in ("state_dict", "model_state_dict", "model", "decoder"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path} holds a {type(loaded).__name__}, not named tensors")
    tensors = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors")
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def _checked(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    bad = [
        name
        for name, value in tensors.items()
        if value.numel() == 0 or (value.is_floating_point() and not value.isfinite().all())
    ]
    if bad:
        raise CheckpointError(
            f"{path} holds values that are not finite, or empty tensors, in {_some(bad)}; {_FETCH_AGAIN}"
        )
    return tensors


def check_fits(state_dict: Mapping[str, Tensor], model: nn.Module, origin: str) -> None:
    """Raises unless the names and shapes are exactly those of the model.

    Args:
        state_dict: In the model's layout.
        model: May be on the meta device.
        origin: Named in the message.

    Raises:
        CheckpointError: Names the first few that are missing, unexpected or of another shape.
    """
    expected = model.state_dict()
    missing = [name for name in expected if name not in state_dict]
    unexpected = [name for name in state_dict if name not in expected]
    shapes = [
        f"{name} {tuple(state_dict[name].shape)}, expected {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state_dict and state_dict[name].shape != value.shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    problems = [f"{len(names)} tensors {kind} ({_some(names)})" for kind, names in found.items() if names]
    if problems:
        raise CheckpointError(
            f"{origin} does not fit the architecture: {'; '.join(problems)}. If these are the weights of "
            f"another tower, name that tower or architecture"
        )


def _some(names: list[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (f", and {len(names) - limit} more" if len(names) > limit else "")
