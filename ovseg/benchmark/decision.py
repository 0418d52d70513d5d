"""Decision: scores on a 28 x 28 grid to a 4K label map, against doing everything at full size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.benchmark.harness import compare, fresh_run, record
from ovseg.dense.score_field import ScoreField
from ovseg.dense.windows import slide
from ovseg.inference.decision import decide
from ovseg.inference.steps import Softmax
from ovseg.vocab.vocabulary import Vocabulary, VocabularyClass

__all__ = ["run"]

_GRID = (28, 28)
_SIZE = (2160, 3840)
_STEPS = (Softmax(100.0),)


def run() -> Iterator[dict[str, Any]]:
    """Yields times and peak memory for K = 150, 1000 and 10000 classes; the naive way beside the first."""
    scores = _scores(150)
    yield compare(
        "decision.labels",
        _ours(150),
        lambda: _naive(scores),
        repeats=3,
        difference=lambda ours, naive: _wrong(ours, naive, scores),
        classes=150,
        size=_SIZE,
    )
    for classes in (150, 1000, 10000):
        milliseconds, peak = fresh_run(_ours, classes=classes)
        yield record(
            "decision.scaling", classes=classes, ours_ms=milliseconds, ms_per_class=milliseconds / classes,
            peak_mb=round(peak / 2**20),
        )  # fmt: skip


def _scores(classes: int) -> Tensor:
    """Cosine similarities as CLIP gives them: a smooth part and noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, classes, 5, 5, generator=generator)
    smooth = F.interpolate(coarse, _GRID, mode="bilinear", align_corners=False)
    return 0.2 + 0.03 * smooth + 0.01 * torch.randn(1, classes, *_GRID, generator=generator)


def _ours(classes: int) -> Callable[[], Tensor]:
    field = ScoreField.from_windows(_scores(classes), slide(_SIZE))
    vocabulary = Vocabulary(tuple(VocabularyClass(f"c{k}", (f"w{k}",)) for k in range(classes)))
    return lambda: decide(field, _STEPS, vocabulary).label_map


def _naive(scores: Tensor) -> Tensor:
    full = F.interpolate(scores, _SIZE, mode="bilinear", align_corners=False)[0]
    return (100.0 * full).softmax(dim=0).max(dim=0).indices


def _wrong(ours: Tensor, naive: Tensor, scores: Tensor) -> float:
    """Share of pixels with another label although the best two scores lie more than 1e-5 apart."""
    full = F.interpolate(scores, _SIZE, mode="bilinear", align_corners=False)[0]
    top = full.topk(2, dim=0).values
    return float(((ours != naive) & (top[0] - top[1] > 1e-5)).float().mean())
