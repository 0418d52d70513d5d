"""Image: a decoded picture to its label map, against the bare visual forward of open_clip at that size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ovseg.benchmark.harness import compare
from ovseg.inference.predictor import Predictor
from ovseg.inference.results import SegResult

__all__ = ["run"]

_SIZE = 448
_CLASSES = 21


def run() -> Iterator[dict[str, Any]]:
    """Yields ``image.forward`` and ``image.segment`` for both activations of ViT-B/16."""
    yield from _measure("ViT-B-16-quickgelu")
    yield from _measure("ViT-B-16")


@torch.inference_mode()
def _measure(name: str) -> Iterator[dict[str, Any]]:
    theirs = _open_clip(name)
    predictor = _predictor(name, theirs.state_dict())
    image = np.random.default_rng(0).integers(0, 256, (_SIZE, _SIZE, 3), np.uint8)
    tensor = next(predictor._view(image).batches())

    def forward() -> torch.Tensor:
        return theirs.encode_image(tensor)

    def segment() -> SegResult:
        return predictor.segment(image, background="none", keep_image=False)

    yield compare(
        "image.forward", lambda: predictor.model.clip.encode_image(tensor), forward,
        repeats=9, architecture=name, size=_SIZE,
    )  # fmt: skip
    # the results are of two kinds: what the label map should be is for the tests to say
    yield compare(
        "image.segment", segment, forward, repeats=9, difference=None,
        architecture=name, size=_SIZE, classes=_CLASSES,
    )  # fmt: skip


def _open_clip(name: str) -> Any:
    import open_clip

    torch.manual_seed(0)
    return open_clip.create_model(name, force_image_size=_SIZE).eval()


def _predictor(name: str, weights: dict[str, torch.Tensor]) -> Predictor:
    from ovseg.api import build
    from ovseg.towers.clip import architecture
    from ovseg.towers.converters import convert
    from ovseg.towers.table import TowerInfo
    from ovseg.towers.tokenizer import Tokenizer
    from ovseg.towers.weights import LoadedClip, build_clip

    config = architecture(name).with_vision(image_size=(_SIZE, _SIZE))
    clip = build_clip(config, convert(weights), name)
    predictor = build(
        "maskclip", LoadedClip(clip, Tokenizer(config.text.context_length), TowerInfo(name, name))
    )
    predictor.set_vocabulary([f"thing number {k}" for k in range(_CLASSES)], templates=["{}"])
    predictor.segment(np.zeros((32, 32, 3), np.uint8), background="none")  # encodes the words
    return predictor
