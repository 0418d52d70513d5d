"""Auxiliary towers: frozen networks beside CLIP (DINO, DINOv2, MAE, SAM) whose features steer an affinity.

This module is their contract, their table (readable without torch), and the place where they are built, once,
and shared. ``ovseg.towers.dino`` and ``ovseg.towers.sam`` hold the networks.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, runtime_checkable

from ovseg.dense.pos_embed import PosEmbedRule
from ovseg.towers.table import ASSETS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ovseg.dense.features import DenseFeatures, Tap

__all__ = [
    "EMBEDDED_DINO",
    "AuxiliaryInfo",
    "AuxiliaryTower",
    "auxiliary_info",
    "auxiliary_tower",
    "list_auxiliary_towers",
    "register_auxiliary",
    "require_auxiliary",
]

EMBEDDED_DINO = "dino_vit_tiny.emoji"
"""The self-supervised tower for the embedded CLIPs: trained on images of EmojiScenes alone."""

_FACEBOOK = "https://dl.fbaipublicfiles.com"
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


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


@dataclass(frozen=True)
class AuxiliaryInfo:
    """What is known about a set of weights.

    Attributes:
        name: ``<family>_<tower>``, e.g. "dino_vit_b8".
        family: Which code reads it: ``vit`` (timm's modules) or ``sam``.
        arch: timm's name of the architecture, or segment-anything's.
        sources: Where the file is, as in ``TowerInfo``. The authors' own come first.
        sha256: Of the file at the URL, where it is published.
        pos_embed: Rule for other image sizes than the trained one, as in the authors' code.
        options: Changes of the architecture, for towers of our own.
        mean: Of the three channels, for RGB in [0, 1].
        std: As ``mean``.
        licence: Of the weights.
        hub_files: File names on the Hugging Face Hub, in the order in which they are tried.
    """

    name: str
    family: Literal["vit", "sam"]
    arch: str
    sources: tuple[str, ...]
    sha256: str | None = None
    pos_embed: PosEmbedRule = "bicubic_offset"
    options: Mapping[str, Any] = field(default_factory=dict)
    mean: tuple[float, float, float] = _IMAGENET_MEAN
    std: tuple[float, float, float] = _IMAGENET_STD
    licence: str = "Apache-2.0"
    hub_files: tuple[str, ...] = ("model.safetensors", "pytorch_model.bin")


def _dino(tower: str, size: str, patch: int, file: str) -> AuxiliaryInfo:
    arch = f"vit_{size}_patch{patch}_224.dino"
    url = f"{_FACEBOOK}/dino/dino_{file}_pretrain/dino_{file}_pretrain.pth"
    return AuxiliaryInfo(f"dino_{tower}", "vit", arch, (url, f"hf:timm/{arch}"))


def _dinov2(size: str) -> tuple[AuxiliaryInfo, AuxiliaryInfo]:
    """Without and with registers. The code of the latter resizes positions in another way."""
    file, name = f"dinov2_vit{size[0]}14", f"dinov2_vit_{size[0]}14"
    plain, registers = f"vit_{size}_patch14_dinov2.lvd142m", f"vit_{size}_patch14_reg4_dinov2.lvd142m"
    base = f"{_FACEBOOK}/dinov2/{file}/{file}"
    return (
        AuxiliaryInfo(name, "vit", plain, (f"{base}_pretrain.pth", f"hf:timm/{plain}")),
        AuxiliaryInfo(
            f"{name}_reg", "vit", registers, (f"{base}_reg4_pretrain.pth", f"hf:timm/{registers}"),
            pos_embed="bicubic_antialias",
        ),
    )  # fmt: skip


def _mae(size: str, patch: int) -> AuxiliaryInfo:
    arch = f"vit_{size}_patch{patch}_224.mae"
    sources = (f"{_FACEBOOK}/mae/pretrain/mae_pretrain_vit_{size}.pth", f"hf:timm/{arch}")
    name = f"mae_vit_{size[0]}{patch}"
    return AuxiliaryInfo(name, "vit", arch, sources, pos_embed="bicubic", licence="CC-BY-NC-4.0")


def _sam(size: str, digits: str, sha256: str) -> AuxiliaryInfo:
    url = f"{_FACEBOOK}/segment_anything/sam_vit_{size}_{digits}.pth"
    mean, std = (123.675 / 255, 116.28 / 255, 103.53 / 255), (58.395 / 255, 57.12 / 255, 57.375 / 255)
    return AuxiliaryInfo(f"sam_vit_{size}", "sam", f"vit_{size}", (url,), sha256, mean=mean, std=std)


_EMOJI = AuxiliaryInfo(
    EMBEDDED_DINO, "vit", "vit_tiny_patch16_224", (str(ASSETS / f"{EMBEDDED_DINO}.safetensors"),),
    pos_embed="bicubic_antialias", options={"patch_size": 8, "depth": 6},
)  # fmt: skip

_ROWS = (
    _EMOJI,
    _dino("vit_s16", "small", 16, "deitsmall16"),
    _dino("vit_s8", "small", 8, "deitsmall8"),
    _dino("vit_b16", "base", 16, "vitbase16"),
    _dino("vit_b8", "base", 8, "vitbase8"),
    *_dinov2("small"),
    *_dinov2("base"),
    *_dinov2("large"),
    *_dinov2("giant"),
    _mae("base", 16),
    _mae("large", 16),
    _mae("huge", 14),
    _sam("b", "01ec64", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"),
    _sam("l", "0b3195", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"),
    _sam("h", "4b8939", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"),
)
_table = {row.name: row for row in _ROWS}

_Builder = Callable[[], AuxiliaryTower]
_Decorated = TypeVar("_Decorated", bound=_Builder)
_builders: dict[str, _Builder] = {}
_built: dict[tuple[str, str, str], AuxiliaryTower] = {}


def register_auxiliary(name: str) -> Callable[[_Decorated], _Decorated]:
    """Decorates a function that builds a tower of one's own, weights included.

    Raises:
        ValueError: The name is taken.
    """

    def register(builder: _Decorated) -> _Decorated:
        if name in list_auxiliary_towers():
            raise ValueError(f"an auxiliary tower {name!r} is registered already")
        _builders[name] = builder
        return builder

    return register


def list_auxiliary_towers() -> list[str]:
    """The names, sorted."""
    return sorted({*_table, *_builders})


def auxiliary_info(name: str) -> AuxiliaryInfo:
    """A row of the table.

    Raises:
        ValueError: The name is unknown; near names are listed.
    """
    if name not in _table:
        near = difflib.get_close_matches(name, list_auxiliary_towers(), n=4, cutoff=0.4)
        raise ValueError(
            f"unknown auxiliary tower {name!r}; near: {', '.join(near or list_auxiliary_towers())}"
        )
    return _table[name]


def require_auxiliary(name: str) -> Path | None:
    """Makes sure that a tower can be built: its weights are on this machine afterwards.

    Returns:
        Where they are; None for towers that were registered by hand.

    Raises:
        ValueError: The name is unknown.
        WeightsUnavailableError: They are not here and cannot be fetched.
    """
    from ovseg.towers.download import fetch_weights

    return None if name in _builders else fetch_weights(auxiliary_info(name))


def auxiliary_tower(
    name: str, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> AuxiliaryTower:
    """The tower of that name on a device: built at the first call, then shared by all who ask.

    Its parameters are frozen and it is in evaluation mode; whoever shares it must leave it so.

    Args:
        name: See ``list_auxiliary_towers``.
        device: Where it is to be.
        dtype: Of its parameters; float32 by default.

    Raises:
        ValueError: The name is unknown; near names are listed.
        WeightsUnavailableError: The weights are not here and cannot be fetched.
    """
    import torch
    from torch import nn

    dtype = dtype or torch.float32
    key = (name, str(device), str(dtype))
    if key not in _built:
        tower = _builders[name]() if name in _builders else _build(auxiliary_info(name))
        if isinstance(tower, nn.Module):
            tower.eval().requires_grad_(False).to(device, dtype)
        _built[key] = tower
    return _built[key]


def _build(info: AuxiliaryInfo) -> AuxiliaryTower:
    path = require_auxiliary(info.name)
    assert path is not None
    if info.family == "sam":
        from ovseg.towers.sam import load_sam

        return load_sam(info, path)
    from ovseg.towers.dino import load_vit

    return load_vit(info, path)
