"""Runner, data loader and hooks of a training whose batches are functions of their step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import DATASETS
from mmengine.runner import Runner, find_latest_checkpoint
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from ovseg._files import atomic_path
from ovseg.datasets.emoji import ARTISTS
from ovseg.evaluation.emoji import EmojiEvaluation, evaluate_tower
from ovseg.training.best_checkpoint import recover_best
from ovseg.training.clip_pretraining import clamp_scale, whiten_patches
from ovseg.training.curves import plot_curves, read_curves
from ovseg.training.export import export_tower, load_pretrainer

__all__ = [
    "AtomicRunner",
    "EmojiEvaluationHook",
    "PretrainHook",
    "StepSampler",
    "TowerCardHook",
    "step_loader",
]


class AtomicRunner(Runner):
    """mmengine's Runner, with checkpoints that are either whole or absent, and batches by step.

    ``train_dataloader=dict(batches=dict(type=...), num_workers=1)`` builds a ``step_loader``. Every runner of
    a process has a logger, a message hub and a visualizer of its own: mmengine shares them by name, and its
    names are those of the config and of the second.
    """

    _numbers = count()

    def __init__(self, *args: Any, experiment_name: str | None = None, **kwargs: Any) -> None:
        name = experiment_name or Path(getattr(kwargs.get("cfg"), "filename", None) or "run").stem
        super().__init__(*args, experiment_name=f"{name}_{next(self._numbers)}", **kwargs)

    def build_visualizer(self, visualizer: Any = None) -> Any:
        """As in mmengine, but named after this run."""
        if isinstance(visualizer, Mapping):
            visualizer = {**visualizer, "name": self.experiment_name}
        return super().build_visualizer(visualizer)

    @staticmethod
    def build_dataloader(dataloader: Any, seed: int | None = None, diff_rank_seed: bool = False) -> Any:
        """As in mmengine, and ``step_loader`` for a dict with ``batches``."""
        if isinstance(dataloader, Mapping) and "batches" in dataloader:
            dataset = DATASETS.build(dataloader["batches"])
            return step_loader(dataset, dataloader.get("num_workers", 1))
        return Runner.build_dataloader(dataloader, seed, diff_rank_seed)

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """As in mmengine, and the best checkpoint is known whenever the training was killed."""
        super().resume(filename, *args, **kwargs)
        recover_best(self)

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """As in mmengine, but through a temporary file: a kill in between leaves no half checkpoint."""
        with atomic_path(Path(out_dir) / filename) as path:
            super().save_checkpoint(str(path.parent), path.name, *args, **kwargs)


class StepSampler(Sampler[int]):
    """Steps in order, from wherever a resume left off.

    Args:
        length: Number of steps.
    """

    def __init__(self, length: int) -> None:
        self.length, self.start = length, 0

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.length))

    def __len__(self) -> int:
        return self.length

    def skip(self, steps: int) -> None:
        """Leaves out steps that are done; mmengine's loop calls it on resume."""
        self.start += steps


def step_loader(dataset: Sequence[dict[str, Any]], workers: int = 1) -> DataLoader[Any]:
    """A loader of a data set whose items are whole batches, item i that of step i."""
    return DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_size=1,
        sampler=StepSampler(len(dataset)),
        num_workers=workers,
        collate_fn=_as_tensors,
        worker_init_fn=_one_thread,
        prefetch_factor=6 if workers else None,
        multiprocessing_context="fork" if workers else None,
    )


def _as_tensors(items: list[dict[str, Any]]) -> dict[str, Any]:
    (batch,) = items
    return {key: torch.from_numpy(v) if hasattr(v, "dtype") else v for key, v in batch.items()}


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


class PretrainHook(Hook):
    """Starts the patch projection from the data, bounds the temperature, and keeps checkpoints plain.

    Args:
        batches: Number of batches whose patches are whitened.
    """

    priority = "VERY_HIGH"

    def __init__(self, batches: int = 4) -> None:
        self.batches = batches

    def before_train(self, runner: Runner) -> None:
        """Whitens the first layer, unless the training goes on from other weights."""
        model = runner.model
        if runner.iter > 0 or runner._load_from or model.start is not None:
            return
        whiten_patches(model.visual.conv1, self.first_images(runner))

    def first_images(self, runner: Runner) -> Tensor:
        """(B, 3, s, s) images of the first steps, normalised, cut to the size of the smallest."""
        dataset = runner.train_dataloader.dataset
        images = [torch.from_numpy(dataset[step]["image"]) for step in range(self.batches)]
        size = min(image.shape[1] for image in images)
        return torch.cat([runner.model.normalise(image[:, :size, :size]) for image in images])

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Leaves out the log's history, whose objects torch's safe loader refuses; it is in the log files."""
        hub = checkpoint["message_hub"]
        plain = {key: value for key, value in hub["runtime_info"].items() if key != "eta"}
        checkpoint["message_hub"] = {"log_scalars": {}, "runtime_info": plain, "resumed_keys": {}}

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        clamp_scale(runner.model.clip.logit_scale)


class EmojiEvaluationHook(Hook):
    """Evaluates the averaged weights (or the current ones) on another artist's drawings now and then.

    Args:
        interval: Steps between evaluations.
        **what: Fields of ``EmojiEvaluation``.
    """

    priority = "LOW"

    def __init__(self, interval: int, **what: Any) -> None:
        self.interval, self.what = interval, EmojiEvaluation(**what)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if not (self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner)):
            return
        average = next((hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook)), None)
        model = average if average is not None else runner.model
        model.eval()
        drawings = runner.train_dataloader.dataset.composer.drawings
        figures = evaluate_tower(model.clip, model.tokenizer, model.normalise, drawings, self.what)
        model.train()
        runner.visualizer.add_scalars(
            {f"{self.what.split}/{key}": value for key, value in figures.items()}, step=runner.iter + 1
        )
        line = "  ".join(f"{key} {value:.1f}" for key, value in figures.items())
        runner.logger.info(f"{self.what.split} artist at step {runner.iter + 1}: {line}")


class TowerCardHook(Hook):
    """Writes, after the last step, tower and card (``<name>.safetensors``, ``.json``) and ``curves.png``.

    Both the validation and the test artist are measured, the latter for the first time.

    Args:
        name: ``<tower>.<tag>``.
        **what: Fields of ``EmojiEvaluation`` but ``split``.
    """

    priority = "LOWEST"

    def __init__(self, name: str, **what: Any) -> None:
        self.name, self.what = name, what

    def after_train(self, runner: Runner) -> None:
        checkpoint = find_latest_checkpoint(runner.work_dir)
        model, data = load_pretrainer(runner.cfg, checkpoint), runner.train_dataloader.dataset
        figures: dict[str, Any] = {"unit": "percent", **self.what}
        for split in ("val", "test"):
            what = EmojiEvaluation(split=split, **self.what)
            found = evaluate_tower(model.clip, model.tokenizer, model.normalise, data.composer.drawings, what)
            artists = " and ".join(artist.name for artist in ARTISTS if artist.split == split)
            figures[split] = {"artist": artists, **{key: round(value, 1) for key, value in found.items()}}
        card = {
            "recipe": "/".join(Path(runner.cfg.filename).parts[-3:]),
            "steps": runner.iter,
            "images": data.count_images(runner.iter),
            "figures": figures,
        }
        path = export_tower(runner.cfg, checkpoint, self.name, runner.work_dir, card)
        plot_curves(read_curves(runner.work_dir), path.with_name("curves.png"))
        runner.logger.info(f"wrote {path} and its card")
