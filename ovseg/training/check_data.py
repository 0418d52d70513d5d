"""A look at the data before the first step: what is in the labels, whether the names fit, four pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from mmseg.datasets import BaseSegDataset
from PIL import Image

from ovseg._files import atomic_path
from ovseg.evaluation.sets import EvaluationSet
from ovseg.inference.images import read_image
from ovseg.inference.render import overlay
from ovseg.training.samples import SeededSamples
from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["DataCheck", "check_data", "is_segmentation"]

_PICTURES = 4


@dataclass(frozen=True)
class DataCheck:
    """What was found.

    Attributes:
        images: Number of images in the data set.
        looked_at: How many of them were read.
        classes: K names.
        pixels: (K,) int64, labelled pixels of each class.
        ignored: Share of the pixels that are left out, 0 to 1.
        differing: (the data set's name, the model's name) of classes that stand at one place but are called
            differently: synonyms, or an order that does not fit.
        pictures: Files with images and their labels painted over them.
    """

    images: int
    looked_at: int
    classes: tuple[str, ...]
    pixels: np.ndarray
    ignored: float
    differing: tuple[tuple[str, str], ...]
    pictures: tuple[Path, ...]

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{self.looked_at} of {self.images} images read, {100 * self.ignored:.1f} % of pixels left out"
        total = max(int(self.pixels.sum()), 1)
        for name, pixels in zip(self.classes, self.pixels):
            yield f"  {name}: {100 * pixels / total:.2f} %" + ("" if pixels else "   <- never seen")
        for theirs, ours in self.differing:
            yield f"  note: the data set's {theirs!r} is the model's {ours!r}"
        for path in self.pictures:
            yield f"  {path}"


def is_segmentation(cfg: Config) -> bool:
    """Whether a config trains on label maps, as mmseg's data sets have them."""
    loader = cfg.get("train_dataloader")
    if not loader or "dataset" not in loader:
        return False
    kind = _inner(loader["dataset"])["type"]
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(cfg.get("default_scope", "mmseg")) as registry:
            kind = registry.get(kind)
    return isinstance(kind, type) and issubclass(kind, BaseSegDataset)


def _inner(dataset: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of the data set inside those that wrap one."""
    while isinstance(dataset.get("dataset"), Mapping):
        dataset = dataset["dataset"]
    return dataset


def check_data(cfg: Config, folder: Path | None = None, limit: int | None = 200) -> DataCheck:
    """Reads labels of the training data.

    Args:
        cfg: A config of a segmentor.
        folder: Where four pictures go; None draws none.
        limit: Only so many images, spread over the data set; None reads all.

    Raises:
        ValueError: The model and the data set have different numbers of classes.
        LabelError: Labels cannot be read, or hold numbers of no class; the file is named.
    """
    init_default_scope(cfg.get("default_scope", "mmseg"))
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    if isinstance(dataset, SeededSamples):
        dataset = dataset.dataset
    dataset.full_init()
    names = tuple(dataset.metainfo["classes"])
    differing = _compare(names, _model_classes(cfg.model))
    words = Vocabulary.of(list(names))
    data = EvaluationSet("training data", "train", dataset, words, tuple(range(len(names))))
    count = len(dataset) if limit is None else min(limit, len(dataset))
    if not count:
        raise ValueError("the training data set is empty; look at data_root and data_prefix")
    pixels, ignored, total, pictures = np.zeros(len(names), np.int64), 0, 0, []
    for number in range(count):
        index = number * len(dataset) // count
        truth = data.truth(index)
        pixels += np.bincount(truth[truth >= 0], minlength=len(names))
        ignored, total = ignored + int((truth < 0).sum()), total + truth.size
        if folder is not None and number < _PICTURES:
            pictures.append(_picture(data, index, truth, folder / f"{number}.png"))
    return DataCheck(len(dataset), count, names, pixels, ignored / max(total, 1), differing, tuple(pictures))


def _model_classes(model: Mapping[str, Any]) -> tuple[str, ...] | int | None:
    """Names of the model's classes, or their number, or None where it has no such field."""
    head = model.get("decode_head", model)
    heads = head if isinstance(head, list | tuple) else [head]
    for part in (*heads, model):
        if part.get("classes") is not None:
            return Vocabulary.of(part["classes"]).names
        if part.get("num_classes") is not None:
            return int(part["num_classes"])
    return None


def _compare(names: tuple[str, ...], theirs: tuple[str, ...] | int | None) -> tuple[tuple[str, str], ...]:
    """Pairs of names that differ.

    Raises:
        ValueError: The numbers differ.
    """
    if theirs is None:
        return ()
    count = theirs if isinstance(theirs, int) else len(theirs)
    if count != len(names):
        raise ValueError(
            f"the model has {count} classes, the data set {len(names)} ({', '.join(names[:5])}, ...): give "
            "the model the data set's classes, in its order"
        )
    return () if isinstance(theirs, int) else tuple((a, b) for a, b in zip(names, theirs) if a != b)


def _picture(data: EvaluationSet, index: int, truth: np.ndarray, path: Path) -> Path:
    painted = overlay(read_image(data.image(index)), truth, data.vocabulary)
    with atomic_path(path) as temporary:
        Image.fromarray(painted).save(temporary)
    return path
