"""Hooks for trainings that can be killed at any step and go on to the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ovseg.models.word_bank import WordBank
from ovseg.training.samples import seed_everything

__all__ = ["PlainCheckpoint", "SeededSteps"]


class SeededSteps(Hook):
    """Seeds the model's randomness (dropout) anew before each step, from a seed and the step.

    Args:
        seed: Other seeds give other noise.
    """

    priority = "VERY_HIGH"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Two keys in a row, so that no step shares its numbers with a sample."""
        seed_everything(self.seed, runner.iter)


class PlainCheckpoint(Hook):
    """Makes checkpoints small, plain and complete.

    * Of frozen parameters nothing is kept: they come from the tower that the config names.
    * The log's history, whose objects torch's safe loader refuses, is left out; it is in the log files.
    * The vocabulary is added: ``checkpoint["meta"]["vocabulary"]``, as ``Vocabulary.from_dict`` takes it.

    Args:
        trained_only: Whether frozen parameters are left out.
    """

    priority = "VERY_LOW"  # after the averaged weights have been added

    def __init__(self, trained_only: bool = True) -> None:
        self.trained_only = trained_only

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        hub = checkpoint["message_hub"]
        plain = {
            key: value.item() if isinstance(value, np.generic) else value
            for key, value in hub["runtime_info"].items()
            if key != "eta"
        }
        checkpoint["message_hub"] = {"log_scalars": {}, "runtime_info": plain, "resumed_keys": {}}
        model = runner.model
        for module in model.modules():
            if isinstance(module, WordBank):
                checkpoint["meta"]["vocabulary"] = module.vocabulary.to_dict()
        if self.trained_only:
            frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
            for key in ("state_dict", "ema_state_dict"):
                for name in list(checkpoint.get(key, ())):
                    if name.removeprefix("module.") in frozen:
                        del checkpoint[key][name]
