"""Training-free methods on a photograph: what they cost beside the bare forward passes of their towers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.benchmark.harness import compare, peak_memory, record
from ovseg.dense.readout import Readout
from ovseg.dense.score_field import ScoreField
from ovseg.dense.windows import WindowGrid, slide
from ovseg.inference.decision import decide
from ovseg.inference.predictor import Predictor
from ovseg.inference.steps import Softmax
from ovseg.vocab.vocabulary import Vocabulary, VocabularyClass

__all__ = ["run"]

_SIZE = (480, 640)
_WORDS = 150
_SCALE = 40.0
# Each with the windows of its own protocol for 150 words, without PAMR.
_METHODS = {
    "sclip": "ade150",
    "clearclip": "ade150",
    "naclip": "ade150_no_pamr",
    "gem": "ade150",
    "cliptrase": "ade150",
    "proxyclip": "ade150",
}


def run() -> Iterator[dict[str, Any]]:
    """Yields, for each method, a record for the following.

    ``training_free.features``: the method's readout against the bare towers on the same windows.
    ``training_free.outside``: all that is not towers and readout, against the bare towers: a ratio of 10
    means a tenth of their time. ``training_free.scores``: of that, from scores of windows to labels, against
    one window at a time at full size; with peak memory.
    """
    for method, protocol in _METHODS.items():
        yield from _measure(method, protocol)
    for name, grid in _grids().items():
        yield from _scores_to_labels(name, grid)


@torch.inference_mode()
def _measure(method: str, protocol: str) -> Iterator[dict[str, Any]]:
    predictor = _predictor(method, protocol)
    model, image = predictor.model, _photograph()
    windows = list(predictor._view(image).batches())
    parameters = {"method": method, "windows": sum(map(len, windows)), "size": _SIZE, "words": _WORDS}

    def towers() -> None:
        for batch in windows:
            model.clip.visual.forward_dense(batch, Readout())
            if method == "proxyclip":
                model.auxiliary(batch)(model.pixels(batch))

    def features() -> None:
        for batch in windows:
            model.features(batch)

    def unlike(ours: Any, reference: Any) -> float:
        return 0.0  # they do not compute the same thing

    yield compare("training_free.features", features, towers, repeats=3, difference=unlike, **parameters)
    answers = cycle([model.features(batch) for batch in windows])
    model.features = lambda batch: next(answers)

    def outside() -> None:
        predictor.segment(image, keep_image=False)

    yield compare("training_free.outside", outside, towers, repeats=3, difference=unlike, **parameters)


def _predictor(method: str, protocol: str) -> Predictor:
    """ViT-B/16 with random weights; the time does not depend on them."""
    from ovseg.api import build
    from ovseg.towers.auxiliary import auxiliary_info
    from ovseg.towers.clip import CLIP, architecture
    from ovseg.towers.dino import SelfSupervisedViT, create_vit
    from ovseg.towers.table import TowerInfo
    from ovseg.towers.tokenizer import Tokenizer
    from ovseg.towers.weights import LoadedClip

    torch.manual_seed(0)
    fields: dict[str, Any] = {}
    if method == "proxyclip":
        info = auxiliary_info("dino_vit_b8")
        fields["auxiliary"] = SelfSupervisedViT(create_vit(info), info).eval()
    config = architecture("ViT-B-16-quickgelu")
    clip = LoadedClip(CLIP(config).eval(), Tokenizer(config.text.context_length), TowerInfo("random", ""))
    predictor = build(method, clip, protocol=protocol, **fields)
    predictor.set_vocabulary([f"thing number {k}" for k in range(_WORDS)], templates=["{}"])
    return predictor


def _photograph() -> np.ndarray:
    """(480, 640, 3) uint8 with large and small structure."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 6, 8, generator=generator)
    smooth = F.interpolate(coarse, _SIZE, mode="bicubic", align_corners=False)[0]
    image = 255 * smooth + 8 * torch.randn(3, *_SIZE, generator=generator)
    return image.clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()


def _grids() -> dict[str, tuple[int, int, int]]:
    """Short side, window and step of the protocols above that have windows."""
    return {"224/112": (336, 224, 112), "448/224": (448, 448, 224), "336/112": (448, 336, 112)}


@torch.inference_mode()
def _scores_to_labels(name: str, grid: tuple[int, int, int]) -> Iterator[dict[str, Any]]:
    ours, naive = _ours(*grid), _naive(*grid)
    windows, scores = _windows(*grid)
    full = ScoreField.from_windows(scores, windows, _SIZE).full()
    top = full.topk(2, dim=0).values
    clear = top[0] - top[1] > 1e-5

    def wrong(labels: Tensor, reference: Tensor) -> float:
        return float(((labels != reference) & clear).float().mean())

    line = compare(
        "training_free.scores", ours, naive, repeats=5, difference=wrong, words=_WORDS, windows=name
    )
    yield line
    arguments = dict(zip(("short", "crop", "stride"), grid))
    ours_mb, naive_mb = (peak_memory(side, **arguments) / 2**20 for side in (_ours, _naive))
    yield record(
        "training_free.memory", ours_mb=round(ours_mb, 1), reference_mb=round(naive_mb, 1), windows=name,
        words=_WORDS,
    )  # fmt: skip


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
