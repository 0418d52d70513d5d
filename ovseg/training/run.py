"""Training from a config: ``train`` is what ``tools/train.py`` and ``ovseg train`` call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.model import BaseModel

from ovseg.training.loop import AtomicRunner

__all__ = ["train"]


def train(
    config: str | Path | Config,
    work_dir: str | Path | None = None,
    resume: bool | str = False,
    cfg_options: Mapping[str, Any] | None = None,
) -> BaseModel:
    """Trains what a config describes, on mmengine's Runner.

    Args:
        config: A config file (Python; it is executed, so only name files you trust), or a config.
        work_dir: Folder of logs and checkpoints; by default ``work_dirs/<name of the config>``.
        resume: True goes on from the newest checkpoint in ``work_dir`` if there is one; a path from that one.
        cfg_options: Changes to the config, keys with dots: ``{"optim_wrapper.optimizer.lr": 1e-3}``.

    Returns:
        The trained model.

    Raises:
        FileNotFoundError: The config or the checkpoint is not there.
    """
    cfg = config if isinstance(config, Config) else Config.fromfile(str(config))
    if cfg_options:
        cfg.merge_from_dict(dict(cfg_options))
    name = Path(cfg.filename).stem if cfg.filename else "run"
    cfg.work_dir = str(work_dir or cfg.get("work_dir") or Path("work_dirs") / name)
    if isinstance(resume, str):
        if not Path(resume).is_file():
            raise FileNotFoundError(f"no checkpoint {resume} to resume from")
        cfg.load_from = resume
    cfg.resume = bool(resume)
    return AtomicRunner.from_cfg(cfg).train()
