"""What teachers say of the images of a training, made before it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from ovseg.training.loop import AtomicRunner

__all__ = ["make_targets"]


def make_targets(
    config: str | Path | Config, steps: int | None = None, progress: Callable[[], None] = lambda: None
) -> int:
    """Asks the teachers of a config (``CLIPDINOiserSegmentor``) about its batches, and keeps the answers.

    A training with the same config reads them instead of asking, to equal weights. What is there already is
    not asked again, so that an interrupted run goes on, and runs of several seeds or settings share.

    Args:
        config: Of the training, with ``model.targets``.
        steps: Batches; by default all of the training.
        progress: Called after each batch.

    Returns:
        The number of batches.

    Raises:
        ValueError: The config has no ``model.targets``.
    """
    cfg = config if isinstance(config, Config) else Config.fromfile(str(config))
    if not cfg.model.get("targets"):
        raise ValueError("there is no folder for targets: --cfg-options model.targets=FOLDER")
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope", "mmseg")):
        model: Any = MODELS.build(cfg.model)
        batches = iter(AtomicRunner.build_dataloader(cfg.train_dataloader, seed=0))
        steps = steps or int(cfg.train_cfg.max_iters)
        for _ in range(steps):
            model.targets(model.data_preprocessor(next(batches), training=True)["inputs"])
            progress()
    return steps
