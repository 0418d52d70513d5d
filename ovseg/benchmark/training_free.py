"""Training-free methods on a photograph: what they cost beside the bare forward passes of their towers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.benchmark.harness import compare, compare_times, in_turn, peak_memory, record
from ovseg.benchmark.replay import Replay, towers_of
from ovseg.dense.score_field import ScoreField
from ovseg.dense.windows import WindowGrid, slide
from ovseg.inference.decision import decide
from ovseg.inference.predictor import Predictor
from ovseg.inference.steps import SamRefine, Softmax
from ovseg.vocab.vocabulary import Vocabulary, VocabularyClass

if TYPE_CHECKING:
    from ovseg.towers.weights import LoadedClip

__all__ = ["ROWS", "run"]

_SIZE = (480, 640)
_WORDS = 150
_SCALE, _SURE = 40.0, 1e5  # of the softmax


@dataclass(frozen=True)
class _Row:
    """A method with a protocol of its own for 150 words.

    Attributes:
        method: Its name.
        protocol: Gives size and windows.
        turns: Of towers, readout and the rest. Few where a turn is long.
        part: Method of the model whose share is told apart, where arithmetic on pixels is what the method is.
        sam_refine: Whether SAM's mask decoder, one more network, redraws the regions.
    """

    method: str
    protocol: str = "ade150"
    turns: int = 3
    part: str | None = None
    sam_refine: bool = False


_METHODS = {
    "sclip": _Row("sclip"),
    "clearclip": _Row("clearclip"),
    "naclip": _Row("naclip", "ade150_no_pamr"),
    "naclip_pamr": _Row("naclip"),
    "gem": _Row("gem"),
    "cliptrase": _Row("cliptrase", turns=9),
    "resclip": _Row("resclip", part="patch_labels"),
    "proxyclip": _Row("proxyclip", turns=2),
    "trident": _Row("trident", turns=2),
    "trident_sam_refine": _Row("trident", turns=2, sam_refine=True),
    "lposs": _Row("lposs"),
    "lposs_plus": _Row("lposs_plus", turns=2, part="spread_pixels"),
}
_GRIDS = {  # short side, window and step of protocols above that have windows
    "336:224/112": (336, 224, 112),
    "448:448/224": (448, 448, 224),
    "448:336/112": (448, 336, 112),
    "448:224/112": (448, 224, 112),
}
ROWS = (*_METHODS, *_GRIDS)
"""What ``run`` measures."""


def run(rows: Collection[str] = ROWS) -> Iterator[dict[str, Any]]:
    """Yields, for each method, records of the following.

    ``training_free.readout``: the method's readout against the bare towers on the same windows.
    ``training_free.outside``: all that is not towers and readout, against the bare towers: a ratio of 10
    means a tenth of their time. Where ``without`` names a part of the method, its results were at hand.

    And for each grid of windows: ``training_free.scores``, from the scores of windows to labels, against one
    window at a time at full size, and ``training_free.memory``, the peak of both in fresh processes.
    """
    for name in rows:
        if name in _METHODS:
            yield from _measure(name, _METHODS[name])
        else:
            yield from _scores_to_labels(name, _GRIDS[name])


@torch.inference_mode()
def _measure(name: str, row: _Row) -> Iterator[dict[str, Any]]:
    predictor, image = _predictor(row), _photograph()
    towers = towers_of(predictor.model)
    part = [Replay(predictor.model, row.part)] if row.part else []

    def segment() -> None:
        predictor.segment(image, keep_image=False)

    for replay in (*towers, *part):
        replay.record()
    segment()
    if {id(tower.owner) for tower in towers} > {id(tower.owner) for tower in towers if tower.images}:
        raise RuntimeError(f"{name} runs a tower through a function that is not recorded; see towers_of")

    def bare() -> None:
        for tower in towers:
            tower.bare()

    def readout() -> None:
        for tower in towers:
            tower.again()

    rest = [_playing(segment, towers)]
    if part:
        rest.append(_playing(segment, [*towers, *part]))
    for side in rest:  # warms up, as recording did the towers
        side()
    bare_ms, readout_ms, *rest_ms = in_turn(bare, readout, *rest, repeats=row.turns)
    facts = {
        "row": name, "protocol": row.protocol, "windows": towers[0].images, "size": _SIZE, "words": _WORDS,
    }  # fmt: skip
    yield compare_times("training_free.readout", readout_ms, bare_ms, **facts)
    for without, times in zip((None, row.part), rest_ms):
        yield compare_times("training_free.outside", times, bare_ms, without=without, **facts)


def _playing(segment: Callable[[], None], replays: Sequence[Replay]) -> Callable[[], None]:
    def step() -> None:
        for replay in replays:
            replay.play()
        segment()
        for replay in replays:
            replay.stop()

    return step


def _predictor(row: _Row) -> Predictor:
    """Towers with random weights; the time does not depend on them."""
    from ovseg.api import build
    from ovseg.methods.registry import get_method

    torch.manual_seed(0)
    cls = get_method(row.method)
    protocol = cls.protocols[row.protocol]
    steps = tuple(step for step in protocol.steps if row.sam_refine or not isinstance(step, SamRefine))
    if row.sam_refine:  # only sure regions prompt SAM, and random towers are sure of none
        steps = tuple(replace(step, scale=_SURE) if isinstance(step, Softmax) else step for step in steps)
    fields = {field: _auxiliary(getattr(cls, field)) for field in ("auxiliary", "sam") if hasattr(cls, field)}
    predictor = build(row.method, _clip(), protocol=replace(protocol, steps=steps), **fields)
    predictor.set_vocabulary([f"thing number {k}" for k in range(_WORDS)], templates=["{}"])
    return predictor


def _clip() -> LoadedClip:
    from ovseg.towers.clip import CLIP, architecture
    from ovseg.towers.table import TowerInfo
    from ovseg.towers.tokenizer import Tokenizer
    from ovseg.towers.weights import LoadedClip

    config = architecture("ViT-B-16-quickgelu")
    return LoadedClip(CLIP(config).eval(), Tokenizer(config.text.context_length), TowerInfo("random", ""))


def _auxiliary(name: str) -> Any:
    from ovseg.towers.auxiliary import auxiliary_info

    info = auxiliary_info(name)
    if info.family == "vit":
        from ovseg.towers.dino import SelfSupervisedViT, create_vit

        return SelfSupervisedViT(create_vit(info), info).eval()
    from segment_anything import sam_model_registry

    from ovseg.towers.sam import SamTower

    return SamTower(sam_model_registry[info.arch](), info).eval()


def _photograph() -> np.ndarray:
    """(480, 640, 3) uint8 with large and small structure."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 6, 8, generator=generator)
    smooth = F.interpolate(coarse, _SIZE, mode="bicubic", align_corners=False)[0]
    image = 255 * smooth + 8 * torch.randn(3, *_SIZE, generator=generator)
    return image.clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()


@torch.inference_mode()
def _scores_to_labels(name: str, grid: tuple[int, int, int]) -> Iterator[dict[str, Any]]:
    ours, naive = _ours(*grid), _naive(*grid)
    windows, scores = _windows(*grid)
    full = ScoreField.from_windows(scores, windows, _SIZE).full()
    top = full.topk(2, dim=0).values
    clear = top[0] - top[1] > 1e-5
    del full, top

    def wrong(labels: Tensor, reference: Tensor) -> float:
        return float(((labels != reference) & clear).float().mean())

    facts = {"row": name, "windows": len(windows), "size": _SIZE, "words": _WORDS}
    yield compare("training_free.scores", ours, naive, repeats=5, difference=wrong, **facts)
    arguments = dict(zip(("short", "crop", "stride"), grid))
    ours_mb, naive_mb = (peak_memory(side, **arguments) / 2**20 for side in (_ours, _naive))
    yield record("training_free.memory", ours_mb=round(ours_mb, 1), reference_mb=round(naive_mb, 1), **facts)


def _windows(short: int, crop: int, stride: int) -> tuple[WindowGrid, Tensor]:
    """Windows over the photograph, resized, and scores (windows, words, h, w) like cosines of CLIP."""
    grid = slide((short, round(short * _SIZE[1] / _SIZE[0])), crop, stride)
    generator = torch.Generator().manual_seed(0)
    cells = crop // 16
    return grid, 0.2 + 0.03 * torch.randn(len(grid), _WORDS, cells, cells, generator=generator)


def _ours(short: int, crop: int, stride: int) -> Callable[[], Tensor]:
    grid, scores = _windows(short, crop, stride)
    vocabulary = Vocabulary(tuple(VocabularyClass(f"c{k}", (f"w{k}",)) for k in range(_WORDS)))
    steps = (Softmax(_SCALE),)
    return lambda: decide(ScoreField.from_windows(scores, grid, _SIZE), steps, vocabulary).label_map


def _naive(short: int, crop: int, stride: int) -> Callable[[], Tensor]:
    """One window at a time into full-size scores, as the references do."""
    grid, scores = _windows(short, crop, stride)

    def step() -> Tensor:
        total, count = torch.zeros(1, _WORDS, *grid.size), torch.zeros(1, 1, *grid.size)
        for one, (top, left, bottom, right) in zip(scores, grid.boxes()):
            large = F.interpolate(one[None], grid.crop, mode="bilinear", align_corners=False)
            total += F.pad(large, (left, grid.size[1] - right, top, grid.size[0] - bottom))
            count[:, :, top:bottom, left:right] += 1
        full = F.interpolate(total / count, _SIZE, mode="bilinear", align_corners=False)[0]
        return (_SCALE * full).softmax(dim=0).argmax(dim=0)

    return step
