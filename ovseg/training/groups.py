"""Learning rates and weight decay by patterns of parameter names, and by depth."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

__all__ = ["GroupRule", "LayerDecay", "PatternGroups"]


@dataclass(frozen=True)
class GroupRule:
    """What holds for the parameters whose names a pattern finds.

    Attributes:
        pattern: Regular expression, searched for anywhere in the name.
        lr: Factor on the learning rate; 0 freezes.
        decay: Factor on the weight decay.
    """

    pattern: str
    lr: float = 1.0
    decay: float = 1.0


@dataclass(frozen=True)
class LayerDecay:
    """Smaller rates for earlier layers (Clark et al., ELECTRA, 2020; BEiT).

    Attributes:
        pattern: Regular expression whose first group is the number of the layer, from 0.
        depth: Number of layers.
        rate: The last layer has factor ``rate``, each one before it ``rate`` times less.
        first: Regular expression of what lies before all layers (embeddings).
    """

    pattern: str
    depth: int
    rate: float
    first: str = r"(conv1|class_embedding|positional_embedding|patch_embed|ln_pre)"

    def factor(self, name: str) -> float:
        """On the learning rate of a parameter."""
        if found := re.search(self.pattern, name):
            return self.rate ** (self.depth - int(found[1]))
        return self.rate ** (self.depth + 1) if re.search(self.first, name) else 1.0


class PatternGroups:
    """Constructor of an optimiser wrapper: ``optim_wrapper=dict(constructor=PatternGroups, ...)``.

    Every rule that fits a parameter counts: factors multiply. Biases, norms and all other one-dimensional
    parameters have no weight decay.

    Args:
        optim_wrapper_cfg: As in mmengine.
        paramwise_cfg: ``rules``, a list of fields of ``GroupRule``; ``layer_decay``, those of ``LayerDecay``.

    Raises:
        ValueError: A pattern fits no parameter, or nothing is left to train (when called).
    """

    def __init__(
        self, optim_wrapper_cfg: Mapping[str, Any], paramwise_cfg: Mapping[str, Any] | None = None
    ) -> None:
        self.cfg = {key: value for key, value in optim_wrapper_cfg.items() if key != "constructor"}
        paramwise = paramwise_cfg or {}
        self.rules = [GroupRule(**rule) for rule in paramwise.get("rules", ())]
        layers = paramwise.get("layer_decay")
        self.layers = LayerDecay(**layers) if layers else None

    def __call__(self, model: nn.Module) -> OptimWrapper:
        settings = dict(self.cfg)
        optimizer = dict(settings.pop("optimizer"))
        settings.setdefault("type", "OptimWrapper")
        optimizer["params"] = self.groups(model, optimizer["lr"], optimizer.get("weight_decay", 0.0))
        return OPTIM_WRAPPERS.build({**settings, "optimizer": OPTIMIZERS.build(optimizer)})

    def groups(self, model: nn.Module, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups, one for each pair of learning rate and weight decay."""
        names = [name for name, _ in model.named_parameters()]
        for rule in self.rules:
            if not any(re.search(rule.pattern, name) for name in names):
                raise ValueError(f"the pattern {rule.pattern!r} fits no parameter, e.g. {names[0]}")
        groups: dict[tuple[float, float], dict[str, Any]] = {}
        for name, parameter in model.named_parameters():
            rate, decay = self.factors(name, parameter.ndim)
            if rate == 0:
                parameter.requires_grad_(False)
            if parameter.requires_grad:
                key = (lr * rate, weight_decay * decay)
                groups.setdefault(key, {"params": [], "lr": key[0], "weight_decay": key[1]})
                groups[key]["params"].append(parameter)
        if not groups:
            raise ValueError("no parameter is left to train: every one is frozen")
        return list(groups.values())

    def factors(self, name: str, ndim: int) -> tuple[float, float]:
        """On learning rate and weight decay of a parameter."""
        rate = self.layers.factor(name) if self.layers else 1.0
        decay = 1.0 if ndim > 1 else 0.0
        for rule in self.rules:
            if re.search(rule.pattern, name):
                rate, decay = rate * rule.lr, decay * rule.decay
        return rate, decay
