"""Auxiliary towers: frozen networks beside CLIP (DINO, DINOv2, SAM) whose features steer an affinity.

This module is their contract and their registry; each tower is a file of its own that registers itself.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ovseg.dense.features import DenseFeatures, Tap

__all__ = ["AuxiliaryTower", "auxiliary_tower", "list_auxiliary_towers", "register_auxiliary"]


@runtime_checkable
class AuxiliaryTower(Protocol):
    """A frozen ``nn.Module`` that turns images into dense features of its own space."""

    @property
    def stride(self) -> int:
        """Pixels per grid step."""

    def __call__(self, image01: Tensor, taps: tuple[Tap, ...] = ()) -> DenseFeatures:
        """Features of a batch, without gradients.

        Args:
            image01: (B, 3, H, W), RGB in [0, 1], of any size of at least one grid step; normalisation and the
                rule for position embeddings are the tower's own.
            taps: Inner activations to return, as in ``Readout.taps``.

        Returns:
            ``DenseFeatures`` with ``space="width"``; a remainder of the image smaller than a grid step is
            handled as the tower's paper does.
        """


_Builder = Callable[[], AuxiliaryTower]
_Decorated = TypeVar("_Decorated", bound=_Builder)
_builders: dict[str, _Builder] = {}
_built: dict[tuple[str, str], AuxiliaryTower] = {}


def register_auxiliary(name: str) -> Callable[[_Decorated], _Decorated]:
    """Decorates the function that builds a tower with its weights: ``@register_auxiliary("dino_vit_b8")``.

    Raises:
        ValueError: The name is taken.
    """

    def register(builder: _Decorated) -> _Decorated:
        if name in _builders:
            raise ValueError(f"an auxiliary tower {name!r} is registered already")
        _builders[name] = builder
        return builder

    return register


def list_auxiliary_towers() -> list[str]:
    """The registered names, sorted."""
    return sorted(_builders)


def auxiliary_tower(name: str, device: str | torch.device = "cpu") -> AuxiliaryTower:
    """The tower of that name on a device: built at the first call, then shared by all who ask.

    Its parameters are frozen and it is in evaluation mode; whoever shares it must leave it so.

    Raises:
        ValueError: The name is unknown; near names are listed.
    """
    if name not in _builders:
        near = difflib.get_close_matches(name, _builders, n=4, cutoff=0.4) or list_auxiliary_towers()
        raise ValueError(f"unknown auxiliary tower {name!r}; near: {', '.join(near) or 'none'}")
    key = (name, str(device))
    if key not in _built:
        from torch import nn

        tower = _builders[name]()
        if isinstance(tower, nn.Module):
            tower.eval().requires_grad_(False).to(device)
        _built[key] = tower
    return _built[key]
