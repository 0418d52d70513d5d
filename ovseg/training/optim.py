"""Muon for the matrices of the blocks, AdamW for everything else, as one optimiser; and the schedule."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from torch import nn
from torch.optim import AdamW, Optimizer

__all__ = ["MuonAdamW", "MuonAdamWConstructor", "StableDecayLR"]

_BLOCKS = re.compile(r"resblocks|visual\.layer\d|vit\.blocks")
_PLAIN = re.compile(r"embedding|pos_embed|cls_token")


class MuonAdamW(Optimizer):
    """Two optimisers that step together and share one list of parameter groups.

    Args:
        matrices: Parameters for Muon (Jordan et al., 2024): weights inside the network. Updates are scaled to
            the size of AdamW's, so that one learning rate serves both. Convolutions count as matrices from
            what their windows hold to their channels.
        others: Groups for AdamW.
        lr: Learning rate.
        weight_decay: Of the matrices; AdamW's groups carry their own.

    Raises:
        ImportError: torch is older than 2.9, which has no Muon.
    """

    def __init__(
        self, matrices: list[nn.Parameter], others: list[dict[str, Any]], lr: float, weight_decay: float
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise ImportError("training a tower needs torch >= 2.9: pip install -U torch")
        self.matrices = matrices
        with _flattened(matrices):
            muon = torch.optim.Muon(
                matrices, lr=lr, weight_decay=weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
            )
        adamw = AdamW(others, lr=lr, betas=(0.9, 0.98))
        self.parts: tuple[Optimizer, ...] = (muon, adamw)
        super().__init__([*muon.param_groups, *adamw.param_groups], dict(lr=lr))
        self._share_groups()

    def _share_groups(self) -> None:
        """The parts' groups are ours: a scheduler that sets ``lr`` here sets it there."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        with _flattened(self.matrices):
            for part in self.parts:
                part.step()

    def state_dict(self) -> dict[str, Any]:
        """The parts' states."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"]):
            part.load_state_dict(state)
        self._share_groups()


@contextmanager
def _flattened(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Parameters (O, ...) and their gradients are matrices (O, N) inside: torch's Muon takes no others."""
    shapes = [parameter.shape for parameter in parameters]

    def reshape(to: Callable[[torch.Size], Sequence[int]]) -> None:
        for parameter, shape in zip(parameters, shapes):
            grad, parameter.grad = parameter.grad, None
            parameter.data = parameter.data.view(*to(shape))
            if grad is not None:
                parameter.grad = grad.reshape(parameter.shape)

    reshape(lambda shape: (shape[0], -1))
    try:
        yield
    finally:
        reshape(lambda shape: shape)


class MuonAdamWConstructor:
    """Builds the optimiser wrapper of a CLIP in training.

    Muon takes the matrices of the transformer blocks or of the ResNet's stages; AdamW takes the rest, without
    weight decay on embeddings, norms, biases and the temperature.

    Args:
        optim_wrapper_cfg: ``optimizer=dict(lr=..., weight_decay=...)`` and arguments of ``OptimWrapper``.
        paramwise_cfg: Not used; part of mmengine's interface.
    """

    def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: Any = None) -> None:
        self.cfg = dict(optim_wrapper_cfg)

    def __call__(self, model: nn.Module) -> OptimWrapper:
        cfg = {key: value for key, value in self.cfg.items() if key != "type"}
        settings = cfg.pop("optimizer")
        matrices: list[nn.Parameter] = []
        decayed: list[nn.Parameter] = []
        plain: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            if parameter.ndim < 2 or _PLAIN.search(name):
                plain.append(parameter)
            else:
                (matrices if _BLOCKS.search(name) else decayed).append(parameter)
        decay = settings["weight_decay"]
        others = [
            {"params": decayed, "weight_decay": decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        return OptimWrapper(MuonAdamW(matrices, others, settings["lr"], decay), **cfg)


class StableDecayLR(_ParamScheduler):
    """Warm-up, a long constant stretch, then a linear decay (Zhai et al., 2022; Hägele et al., 2024).

    The rate is a function of the step alone. So a checkpoint from the constant stretch can be trained on with
    a later decay: change ``decay_from`` and ``end`` in the config and resume.

    Args:
        optimizer: Optimiser or its wrapper.
        warmup: Steps of linear warm-up.
        decay_from: Step at which the decay begins.
        end: Step at which it ends.
        floor: Share of the rate that is left then.
        last_step: Set on resume.
        verbose: As in mmengine.
    """

    def __init__(
        self,
        optimizer: Any,
        warmup: int,
        decay_from: int,
        end: int,
        floor: float = 0.02,
        last_step: int = -1,
        verbose: bool = False,
    ) -> None:
        self.warmup, self.decay_from, self.decay_end, self.floor = warmup, decay_from, end, floor
        super().__init__(optimizer, "lr", by_epoch=False, last_step=last_step, verbose=verbose)

    def factor(self, step: int) -> float:
        """Share of the full rate at a step."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        done = (step - self.decay_from) / max(1, self.decay_end - self.decay_from)
        return rise * (1 - (1 - self.floor) * min(1.0, max(0.0, done)))

    def _get_value(self) -> list[float]:
        return [base * self.factor(self.last_step) for base in self.base_values]

    def state_dict(self) -> dict[str, Any]:
        """Only where it stands: the form of the schedule belongs to the config."""
        return {"last_step": self.last_step, "_global_step": self._global_step}
