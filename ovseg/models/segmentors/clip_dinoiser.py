"""CLIP-DINOiser in training on mmseg's ``BaseSegmentor``; its teacher FOUND on mmengine's ``BaseModel``."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal

import torch
from mmengine.model import BaseModel
from mmseg.models import SegDataPreProcessor
from mmseg.utils import SampleList
from torch import Tensor, nn

from ovseg.methods.clip_dinoiser.bilateral import BilateralSolver
from ovseg.methods.clip_dinoiser.dino import DinoSource
from ovseg.methods.clip_dinoiser.found import Found
from ovseg.methods.clip_dinoiser.found_training import background_mask, found_losses, snapped
from ovseg.methods.clip_dinoiser.teachers import StoredTeachers, Targets, Teachers
from ovseg.methods.clip_dinoiser.training import dinoiser_losses, parameter_groups
from ovseg.models.clip_source import ClipSource
from ovseg.models.segmentors.open_vocabulary import OpenVocabularySegmentor
from ovseg.registry import MODELS
from ovseg.towers.auxiliary import require_auxiliary
from ovseg.towers.dino import class_attention
from ovseg.training.groups import PatternGroups
from ovseg.vocab.vocabulary import VocabularySource

__all__ = ["CLIPDINOiserGroups", "CLIPDINOiserSegmentor", "FoundTrainer"]


@MODELS.register_module()
class CLIPDINOiserSegmentor(OpenVocabularySegmentor):
    """The two convolutions in training: their losses read images and teachers, and no label.

    Labels and words serve the validation alone. Teachers are frozen and are in no checkpoint.

    Args:
        tower: A CLIP with a ViT, see ``ClipSource``; frozen.
        classes: Words of the validation, see ``Vocabulary.of``.
        auxiliary: The DINO tower whose similarities are learned, by name, or a tower.
        saliency: ``found``: FOUND as published; a file of ``FoundTrainer`` on ``auxiliary``; or a function
            from images in [0, 1] to logits (B, 1, h, w) of being an object.
        feature: Which projections of DINO's last block are compared.
        gamma: Least similarity of patches that belong together.
        targets: Folder where the teachers' answers are kept, see ``StoredTeachers``; None: nowhere.
        **arguments: Of ``OpenVocabularySegmentor``.

    Raises:
        WeightsUnavailableError: Weights are not on this machine and cannot be fetched; those of the teachers
            are missed at the first step.
    """

    def __init__(
        self,
        tower: ClipSource,
        classes: VocabularySource,
        *,
        auxiliary: DinoSource = "dino_vit_b16",
        saliency: str | Callable[[Tensor], Tensor] = "found",
        feature: Literal["k", "v"] = "v",
        gamma: float | None = 0.2,
        targets: str | os.PathLike[str] | None = None,
        **arguments: Any,
    ) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".* head is untrained")  # it is why we are here
            super().__init__("clip_dinoiser", tower, classes, **arguments)
        self._sources = (auxiliary, saliency, feature, gamma, targets)  # in a tuple: they are no submodules
        self.requires_grad_(False)
        for part in (self.segmenter.obj_proj, self.segmenter.bkg_decoder):
            part.requires_grad_(True)

    @cached_property
    def teachers(self) -> Teachers | StoredTeachers:
        """Opened at the first step, so that whoever only uses what was trained needs none."""
        auxiliary, saliency, feature, gamma, folder = self._sources
        if isinstance(auxiliary, str):
            require_auxiliary(auxiliary)
        if isinstance(saliency, str):
            found = saliency == "found"
            saliency = Found.pretrained() if found else Found.from_file(saliency, auxiliary)
        teachers = Teachers(auxiliary, saliency, feature, gamma)
        return teachers if folder is None else StoredTeachers(teachers, folder)

    @torch.no_grad()
    def targets(self, inputs: Tensor) -> Targets:
        """What the teachers say of normalised images (B, 3, H, W), made or read."""
        processor, stride = self.data_preprocessor, self.segmenter.stride
        levels = (inputs * processor.std + processor.mean).round()  # normalised images were of 8 bits
        return self.teachers(levels / 255, (inputs.shape[2] // stride, inputs.shape[3] // stride))

    def loss(self, inputs: Tensor, data_samples: SampleList) -> dict[str, Tensor]:
        """``loss_affinity`` and ``loss_background``, and the shares of joined pairs and of objects."""
        targets = self.targets(inputs)
        losses = dinoiser_losses(self.segmenter, inputs, targets.joined, targets.objects)
        shares = {"joined": targets.joined.float().mean(), "objects": targets.objects.float().mean()}
        return {**losses, **shares}


class CLIPDINOiserGroups(PatternGroups):
    """Optimiser constructor with the authors' groups: a rate for each convolution, decay on all of both.

    Args:
        optim_wrapper_cfg: As in mmengine; its ``lr`` is that of the affinity.
        paramwise_cfg: ``background_lr``, the rate of the background's convolution (0.01 as published).
    """

    def __init__(
        self, optim_wrapper_cfg: Mapping[str, Any], paramwise_cfg: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(optim_wrapper_cfg)
        self.background_lr = (paramwise_cfg or {}).get("background_lr", 0.01)

    def groups(self, model: nn.Module, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """One group for each convolution of a ``CLIPDINOiserSegmentor``."""
        groups = parameter_groups(model.segmenter, lr, self.background_lr)  # type: ignore[arg-type]
        return [{**group, "weight_decay": weight_decay} for group in groups]


@MODELS.register_module()
class FoundTrainer(BaseModel):
    """FOUND's convolution in training, on images without labels.

    Args:
        auxiliary: The DINO tower whose keys it reads, by name, or a tower; frozen and in no checkpoint.
        width: Of the keys, heads concatenated.
        threshold: Of the coarse rule, see ``background_mask``.
        around: Likewise.
        coarse_steps: First steps, which learn from the coarse rule; later ones learn from themselves.
        data_preprocessor: As in mmseg; by default BGR images of 8 bits become RGB in [0, 1].
        init_cfg: As in mmengine.

    Attributes:
        found: The plain module.
        step: () int64, steps done.
    """

    step: Tensor

    def __init__(
        self,
        auxiliary: DinoSource = "dino_vit_s8",
        width: int = 384,
        *,
        threshold: float = 0.3,
        around: int = 1,
        coarse_steps: int = 100,
        data_preprocessor: Any = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(
            data_preprocessor or SegDataPreProcessor([0.0] * 3, [255.0] * 3, bgr_to_rgb=True, size_divisor=1),
            init_cfg,
        )
        self.found = Found(auxiliary, width)
        self.threshold, self.around, self.coarse_steps = threshold, around, coarse_steps
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
        """The losses with ``mode="loss"``; logits (B, 1, h, w) of being an object with ``mode="tensor"``.

        Raises:
            ValueError: Another mode.
        """
        if mode == "tensor":
            return self.found(inputs)
        if mode != "loss":
            raise ValueError(f"mode {mode!r}: there are 'loss' and 'tensor'; FOUND is used as a teacher")
        keys, attention = self._read(inputs)
        logits = self.found.decoder(keys)
        pixels = (inputs * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        solvers = [BilateralSolver(image) for image in pixels]
        size = (inputs.shape[2], inputs.shape[3])
        refined = snapped(logits.detach() > 0, solvers, size)
        first = int(self.step) < self.coarse_steps
        coarse = snapped(self.coarse(attention, keys), solvers, size) if first else refined
        self.step += 1
        shares = {"objects": (logits > 0).float().mean(), "refined": refined.mean(), "coarse": coarse.mean()}
        return {**found_losses(logits, coarse, refined, first), **shares}

    def coarse(self, attention: Tensor, keys: Tensor) -> Tensor:
        """(B, 1, h, w) objects by the coarse rule, from (B, heads, h * w) and (B, D, h, w)."""
        tokens, grid = keys.flatten(2).transpose(1, 2), (keys.shape[2], keys.shape[3])
        background = background_mask(attention, tokens, self.threshold, grid=grid, around=self.around)
        return ~background.view(len(keys), 1, *grid)

    @torch.no_grad()
    def _read(self, image01: Tensor) -> tuple[Tensor, Tensor]:
        """Keys (B, D, h, w) of the patches, and the attention (B, heads, h * w) that they get."""
        tower: Any = self.found.tower(image01)
        found = tower(image01, ((-1, "q"), (-1, "k")))
        q, k = found.taps[-1, "q"], found.taps[-1, "k"]
        attention = class_attention(q, k, tower.heads, tower.prefix)
        return k[:, tower.prefix :].transpose(1, 2).unflatten(2, found.grid), attention
