"""What happens around the steps of ``DINOPretrainer``, and the file that is left in the end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.runner import Runner
from safetensors.torch import save_file
from torch import Tensor, nn

from ovseg._files import atomic_path
from ovseg.datasets.emoji import Drawings, Split, word_table
from ovseg.evaluation.affinity import colour_features, patch_affinity
from ovseg.towers.dino import SelfSupervisedViT
from ovseg.training.clip_pretraining import whiten_patches
from ovseg.training.export import model_card
from ovseg.training.loop import PretrainHook

__all__ = ["DINOHook", "export_vit", "tower_affinity"]


class DINOHook(PretrainHook):
    """Starts the patch projection from the data, moves the teacher, and watches ``tower_affinity``.

    After the last step it writes the teacher and its card into the work directory.

    Args:
        interval: Steps between looks at the affinity.
        split: Artist whose scenes are looked at.
        scenes: Their number.
        batches: As in ``PretrainHook``.
    """

    def __init__(self, interval: int, split: Split = "val", scenes: int = 24, batches: int = 4) -> None:
        super().__init__(batches)
        self.interval, self.split, self.scenes = interval, split, scenes

    def before_train(self, runner: Runner) -> None:
        """Whitens the first layer and starts the teacher, unless the training goes on from other weights."""
        if runner.iter == 0 and not runner._load_from:
            student, teacher = runner.model.student, runner.model.teacher
            whiten_patches(student.vit.patch_embed.proj, self.first_images(runner))
            teacher.load_state_dict(student.state_dict())

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        runner.model.update_teacher(runner.iter)
        if self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner):
            figures = self._figures(runner, self.split)
            runner.visualizer.add_scalars(
                {f"{self.split}/{key}": value for key, value in figures.items()}, step=runner.iter + 1
            )
            line = "  ".join(f"{key} {value:.1f}" for key, value in figures.items())
            runner.logger.info(f"{self.split} artist at step {runner.iter + 1}: {line}")

    def after_train(self, runner: Runner) -> None:
        """Writes ``<tower>.safetensors`` and ``<tower>.card.json``."""
        card = {
            "recipe": "/".join(Path(runner.cfg.filename).parts[-3:]),
            "steps": runner.iter,
            "figures": {
                "unit": "percent, see ovseg.evaluation.affinity",
                **{split: self._figures(runner, split) for split in ("val", "test")},
            },
        }
        path = Path(runner.work_dir) / f"{runner.model.info.name}.safetensors"
        runner.logger.info(f"wrote {export_vit(runner.model.teacher.vit, path, card)} and its card")

    def _figures(self, runner: Runner, split: Split) -> dict[str, float]:
        tower = SelfSupervisedViT(runner.model.teacher.vit, runner.model.info)
        drawings = runner.train_dataloader.dataset.composer.drawings
        found = tower_affinity(tower, drawings, split, self.scenes)
        return {key: round(value, 1) for key, value in found.items()}


def tower_affinity(
    tower: SelfSupervisedViT, drawings: Drawings, split: Split, scenes: int = 24
) -> dict[str, float]:
    """``patch_affinity`` of the last output ("out"), the last block's keys and values, and bare colours."""

    def read(image01: Tensor) -> dict[str, Tensor]:
        features = tower(image01, ((-1, "k"), (-1, "v")))
        found = {"out": features.patches, "colours": colour_features(image01, tower.stride)}
        for (_, site), tokens in features.taps.items():
            found[site] = tokens[:, tower.prefix :].transpose(1, 2).unflatten(2, features.grid)
        return found

    return patch_affinity(read, drawings, split, stride=tower.stride, scenes=scenes)


def export_vit(vit: nn.Module, path: Path, card: Mapping[str, Any]) -> Path:
    """Writes an auxiliary tower under timm's names in half precision, and its card beside it.

    Args:
        vit: timm's module.
        path: ``<folder>/<name>.safetensors``; the card is ``<name>.card.json``.
        card: What it says beyond ``model_card``: figures, steps.
    """
    half = {key: value.detach().half().contiguous() for key, value in vit.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(half, temporary, metadata={"format": "pt"})
        temporary.chmod(0o644)  # safetensors leaves it to its owner
    known = model_card(word_table(), [])
    about = {key: known[key] for key in ("licence", "attribution", "drawings")}
    limits = "Has seen drawings, not photographs, and learned neither from words nor from masks."
    with atomic_path(path.with_suffix(".card.json")) as temporary:
        text = json.dumps({**about, "limits": limits, **card}, indent=1, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return path
