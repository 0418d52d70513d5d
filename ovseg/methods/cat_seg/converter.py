"""State dicts in the layout of the authors' code (detectron2), to ours and back."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ovseg.methods.cat_seg.windows import windows_of
from ovseg.towers.converters import convert_cat_seg, split_projections, to_open_clip

__all__ = ["convert_aggregator", "convert_model", "joined", "to_published", "to_published_aggregator"]

StateDict = dict[str, Tensor]

_CLIP = "sem_seg_head.predictor.clip_model."
_AGGREGATOR = "sem_seg_head.predictor.transformer."
_PROMPT = "visual.transformer.resblocks.{}.attn.prompt"
_MASK = re.compile(r"layers\.\d+\.swin_block\.block_2\.attn_mask")  # follows from the grid

# Whole parts of names, theirs and ours; ``#`` stands for a number.
_PARTS = (
    ("layers.#.swin_block.block_1.attn", "layers.#.spatial.regular.attention"),
    ("layers.#.swin_block.block_2.attn", "layers.#.spatial.shifted.attention"),
    ("layers.#.swin_block.block_1.mlp.fc1", "layers.#.spatial.regular.mlp.0"),
    ("layers.#.swin_block.block_1.mlp.fc2", "layers.#.spatial.regular.mlp.2"),
    ("layers.#.swin_block.block_2.mlp.fc1", "layers.#.spatial.shifted.mlp.0"),
    ("layers.#.swin_block.block_2.mlp.fc2", "layers.#.spatial.shifted.mlp.2"),
    ("layers.#.swin_block.block_1", "layers.#.spatial.regular"),
    ("layers.#.swin_block.block_2", "layers.#.spatial.shifted"),
    ("layers.#.swin_block.guidance_norm", "layers.#.spatial.guidance_norm"),
    ("layers.#.attention.attention", "layers.#.classes"),
    ("layers.#.attention.MLP", "layers.#.classes.mlp"),
    ("layers.#.attention.padding_tokens", "layers.#.classes.padding_token"),
    ("layers.#.attention", "layers.#.classes"),
    ("conv1", "embed"),
    ("guidance_projection", "appearance"),
    ("text_guidance_projection", "text"),
    ("decoder_guidance_projection", "decoder.guidance"),
    ("decoder1.up", "decoder.stages.0.up"),
    ("decoder1.conv.double_conv.0", "decoder.stages.0.conv1"),
    ("decoder1.conv.double_conv.1", "decoder.stages.0.norm1"),
    ("decoder1.conv.double_conv.3", "decoder.stages.0.conv2"),
    ("decoder1.conv.double_conv.4", "decoder.stages.0.norm2"),
    ("decoder2.up", "decoder.stages.1.up"),
    ("decoder2.conv.double_conv.0", "decoder.stages.1.conv1"),
    ("decoder2.conv.double_conv.1", "decoder.stages.1.norm1"),
    ("decoder2.conv.double_conv.3", "decoder.stages.1.conv2"),
    ("decoder2.conv.double_conv.4", "decoder.stages.1.norm2"),
    ("head", "decoder.head"),
)


class _Renaming:
    """Replaces the beginning of a name by the first entry of a table that matches it."""

    def __init__(self, table: tuple[tuple[str, str], ...]) -> None:
        self.rules = [
            (re.compile(re.escape(old).replace(r"\#", r"(\d+)") + r"(?=\.|$)"), new.replace("#", r"\1"))
            for old, new in table
        ]

    def __call__(self, name: str) -> str:
        for pattern, new in self.rules:
            if pattern.match(name):
                return pattern.sub(new, name, count=1)
        raise ValueError(f"{name!r} is no part of CAT-Seg's head")


_to_ours = _Renaming(_PARTS)
# Going back, the norms of the class aggregation lie one level above its projections.
_to_theirs = _Renaming(
    (
        *((f"layers.#.classes.{name}", f"layers.#.attention.attention.{name}") for name in "qkv"),
        *((ours, theirs) for theirs, ours in _PARTS if theirs != "layers.#.attention.attention"),
    )
)


def convert_aggregator(state_dict: Mapping[str, Tensor]) -> StateDict:
    """The authors' ``Aggregator`` to ours.

    Raises:
        ValueError: A name is no part of it.
    """
    return {
        _to_ours(name): value.flatten() if ".padding_" in name else value
        for name, value in state_dict.items()
        if not _MASK.fullmatch(name)
    }


def to_published_aggregator(
    state_dict: Mapping[str, Tensor], grid: tuple[int, int], window: int
) -> StateDict:
    """Inverse of ``convert_aggregator``; the authors' code keeps the masks of shifted windows as buffers.

    Args:
        state_dict: Of an ``Aggregator``.
        grid: (h, w) that the authors' module is made for.
        window: Cells along the side of a window.
    """
    out = {
        _to_theirs(name): value[None, None] if ".padding_" in name else value
        for name, value in state_dict.items()
    }
    mask = _shift_mask(grid, window)
    if mask is not None:
        layers = {match[1] for name in out if (match := re.match(r"layers\.(\d+)\.", name))}
        out |= {f"layers.{i}.swin_block.block_2.attn_mask": mask for i in sorted(layers)}
    return out


def _shift_mask(grid: tuple[int, int], window: int) -> Tensor | None:
    """(windows, N, N): -100 between cells of a rolled window that lie apart in the image."""
    if min(grid) <= window:
        return None
    windows = windows_of(grid, window, shifted=True)
    rows, cols = (
        torch.arange(len(bands)).repeat_interleave(torch.tensor(bands)).roll(-(window // 2))
        for bands in (windows.rows, windows.cols)
    )
    regions = rows[:, None] * len(windows.cols) + cols
    cells = (
        regions.unflatten(1, (-1, window)).unflatten(0, (-1, window)).transpose(1, 2).reshape(-1, window**2)
    )
    return torch.where(cells[:, :, None] == cells[:, None], 0.0, -100.0)


def convert_model(state_dict: Mapping[str, Tensor]) -> StateDict:
    """A published checkpoint to the state dict of a ``CATSegModel``.

    Raises:
        ValueError: A name is no part of CAT-Seg, or a part of it is missing.
    """
    aggregator: StateDict = {}
    out: StateDict = {}
    for name, value in state_dict.items():
        if name.startswith(_AGGREGATOR):
            aggregator[name.removeprefix(_AGGREGATOR)] = value
        elif name.startswith(("upsample1.", "upsample2.")):
            out[f"upsample.{int(name[8]) - 1}{name[9:]}"] = value
        elif not name.startswith(_CLIP):
            raise ValueError(f"{name!r} is no part of CAT-Seg")
    if not aggregator:
        raise ValueError(f"no names that start with {_AGGREGATOR}: this is no checkpoint of CAT-Seg")
    out |= {f"aggregator.{name}": value for name, value in convert_aggregator(aggregator).items()}
    clip = convert_cat_seg(state_dict)
    prompts = clip.pop("visual.transformer.prompt_tokens", ())
    clip |= {_PROMPT.format(i): tokens for i, tokens in enumerate(prompts)}
    return out | {f"clip.{name}": value for name, value in clip.items()}


def joined(state_dict: Mapping[str, Tensor]) -> StateDict:
    """A ``CATSegModel`` whose projections were split for training, as one that was not."""
    clip = {name.removeprefix("clip."): v for name, v in state_dict.items() if name.startswith("clip.")}
    rest = {name: value for name, value in state_dict.items() if not name.startswith("clip.")}
    return rest | {f"clip.{name}": value for name, value in convert_cat_seg(clip).items()}


def to_published(state_dict: Mapping[str, Tensor], grid: tuple[int, int], window: int) -> StateDict:
    """Inverse of ``convert_model``.

    Args:
        state_dict: Of a ``CATSegModel``.
        grid: (h, w) that the authors' module is made for.
        window: Cells along the side of a window.
    """
    parts: dict[str, StateDict] = {"clip": {}, "aggregator": {}, "upsample": {}}
    for name, value in state_dict.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    clip = split_projections(to_open_clip(parts["clip"]))
    prompts = [clip.pop(name) for i in range(len(clip)) if (name := _PROMPT.format(i)) in clip]
    if prompts:
        clip["visual.transformer.prompt_tokens"] = torch.stack(prompts)
    aggregator = to_published_aggregator(parts["aggregator"], grid, window)
    out = {_CLIP + name: value for name, value in clip.items()}
    out |= {_AGGREGATOR + name: value for name, value in aggregator.items()}
    return out | {f"upsample{int(name[0]) + 1}{name[1:]}": v for name, v in parts["upsample"].items()}
