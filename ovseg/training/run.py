"""Training and testing from a config: what ``tools/train.py``, ``tools/test.py`` and ``ovseg train`` call."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel
from mmengine.runner import find_latest_checkpoint

from ovseg.training.amp import BFloat16OptimWrapper
from ovseg.training.loop import AtomicRunner

__all__ = ["prepare_config", "test", "train"]


def train(
    config: str | Path | Config,
    work_dir: str | Path | None = None,
    resume: bool | str = False,
    cfg_options: Mapping[str, Any] | None = None,
    *,
    data_root: str | Path | None = None,
    amp: bool = False,
    launcher: str = "none",
) -> BaseModel:
    """Trains what a config describes, on mmengine's Runner.

    Args:
        config: A config file (Python; it is executed, so only name files you trust), or a config.
        work_dir: Folder of logs and checkpoints; by default ``work_dirs/<name of the config>``.
        resume: True goes on from the newest checkpoint in ``work_dir`` if there is one; a path from that one.
        cfg_options: Changes to the config, keys with dots: ``{"optim_wrapper.optimizer.lr": 1e-3}``.
        data_root: Where the data sets lie, see ``prepare_config``.
        amp: Mixed precision, in bfloat16.
        launcher: "none", or "pytorch" under torchrun.

    Returns:
        The trained model.

    Raises:
        FileNotFoundError: The config or the checkpoint is not there.
        ValueError: The checkpoint is not safe to read.
    """
    cfg = prepare_config(config, work_dir, cfg_options, data_root=data_root, amp=amp, launcher=launcher)
    if isinstance(resume, str):
        if not Path(resume).is_file():
            raise FileNotFoundError(f"no checkpoint {resume} to resume from")
        cfg.load_from = resume
    cfg.resume = bool(resume)
    _check_checkpoint(cfg)
    return AtomicRunner.from_cfg(cfg).train()


def test(
    config: str | Path | Config,
    checkpoint: str | Path,
    work_dir: str | Path | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    *,
    data_root: str | Path | None = None,
    launcher: str = "none",
) -> dict[str, float]:
    """Tests a checkpoint with the config's ``test_dataloader`` and ``test_evaluator``.

    Nothing is drawn, though the config has a hook for training that draws: in a test mmseg's would draw every
    image, which takes longer than the model. ``{"default_hooks.visualization.draw": True}`` asks for it.

    Args:
        config: As in ``train``.
        checkpoint: A file of a training.
        work_dir: As in ``train``.
        cfg_options: As in ``train``.
        data_root: As in ``train``.
        launcher: As in ``train``.

    Returns:
        The metrics.

    Raises:
        FileNotFoundError: The config or the checkpoint is not there.
        ValueError: The checkpoint is not safe to read.
    """
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f"no checkpoint {checkpoint} to test")
    cfg = prepare_config(config, work_dir, cfg_options, data_root=data_root, launcher=launcher)
    hook = cfg.get("default_hooks", {}).get("visualization") or {}
    if hook.get("draw") and "default_hooks.visualization.draw" not in (cfg_options or {}):
        hook["draw"] = False
    cfg.load_from, cfg.resume = str(checkpoint), False
    _check_checkpoint(cfg)
    return AtomicRunner.from_cfg(cfg).test()


def prepare_config(
    config: str | Path | Config,
    work_dir: str | Path | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    *,
    data_root: str | Path | None = None,
    amp: bool = False,
    launcher: str = "none",
) -> Config:
    """A config with the changes of a command line.

    Args:
        config: As in ``train``.
        work_dir: As in ``train``.
        cfg_options: As in ``train``.
        data_root: Takes the place of the leading ``data`` in every ``data_root`` of the config; or is that
            data set's own folder, where nothing lies below under the conventional name.
        amp: As in ``train``.
        launcher: As in ``train``.

    Raises:
        FileNotFoundError: The config is not there.
    """
    if not isinstance(config, Config) and not Path(config).is_file():
        raise FileNotFoundError(f"no config {config}; those that come with ovseg lie below configs/")
    cfg = config if isinstance(config, Config) else Config.fromfile(str(config))
    if cfg_options:
        cfg.merge_from_dict(dict(cfg_options))
    if data_root is not None:
        _move_data(cfg._cfg_dict, Path(data_root))
    name = Path(cfg.filename).stem if cfg.filename else "run"
    cfg.work_dir = str(work_dir or cfg.get("work_dir") or Path("work_dirs") / name)
    cfg.launcher = launcher
    if amp:  # by name: a class that the file does not import could not be read from its dump
        cfg.optim_wrapper.type = BFloat16OptimWrapper.__name__
    if find_spec("tensorboard"):
        _add_board(cfg)
    return cfg


def _add_board(cfg: Config) -> None:
    """Curves and pictures go to TensorBoard too, where it is installed (the extra ``board``)."""
    if not cfg.get("visualizer"):
        cfg.visualizer = {"type": "Visualizer", "vis_backends": [{"type": "LocalVisBackend"}]}
    if not cfg.visualizer.get("vis_backends"):
        cfg.visualizer["vis_backends"] = []
    backends = cfg.visualizer["vis_backends"]  # changed in place: a copy could not be dumped
    if not any("Tensorboard" in str(backend["type"]) for backend in backends):
        backends.append({"type": "mmengine.TensorboardVisBackend"})


def _check_checkpoint(cfg: Config) -> None:
    """Refuses a checkpoint that only pickle can read: mmengine would fall back to that by itself.

    Raises:
        ValueError: It holds more than weights and plain data.
    """
    path = cfg.get("load_from") or (find_latest_checkpoint(cfg.work_dir) if cfg.resume else None)
    if path is None or not Path(path).is_file():
        return  # a URL, or nothing yet
    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds objects that could run code when they are read. If you trust its source, keep its "
            "weights alone: torch.save(torch.load(path, weights_only=False)['state_dict'], new_path)"
        ) from error


def _move_data(value: Any, root: Path) -> None:
    if isinstance(value, ConfigDict | dict):
        if isinstance(old := value.get("data_root"), str):
            parts = Path(old).parts
            below = root.joinpath(*parts[1:] if parts[:1] == ("data",) else parts)
            value["data_root"] = str(below if below.is_dir() else root)
        for inner in value.values():
            _move_data(inner, root)
    elif isinstance(value, list | tuple):
        for inner in value:
            _move_data(inner, root)
