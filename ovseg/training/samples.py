"""Samples whose order and randomness follow from a seed: a resumed training sees what it would have seen.

A plain mmseg training draws augmentations from numpy's global generator, so that after a resume every crop
is another one. Here sample number p of a training is image ``order(seed, epoch)[p mod n]``, and its
augmentations are drawn after seeding with (seed, epoch, image).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info
from mmengine.registry import DATASETS
from torch.utils.data import Dataset, Sampler

__all__ = ["SampleNumbers", "SeededSamples", "seed_everything"]


def seed_everything(*key: int) -> None:
    """Seeds Python's, numpy's and torch's global generators from a key of non-negative integers."""
    words = np.random.SeedSequence(key).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]))


class SeededSamples(Dataset[Any]):
    """A data set of mmengine's kind by sample number, for ever; goes with ``SampleNumbers``.

    Args:
        dataset: The data set, or its config.
        seed: Other seeds give other orders and augmentations.
    """

    def __init__(self, dataset: Any, seed: int = 0) -> None:
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset
        self.seed = seed
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    @property
    def metainfo(self) -> dict[str, Any]:
        """Of the data set: mmengine's Runner hands it to visualizer, metrics and checkpoints."""
        return self.dataset.metainfo

    def __len__(self) -> int:
        """Samples of one epoch."""
        return len(self.dataset)

    def full_init(self) -> None:
        """Of the data set: mmengine's loader calls it."""
        self.dataset.full_init()

    def locate(self, number: int) -> tuple[int, int]:
        """(epoch, image) of a sample number."""
        epoch, place = divmod(number, len(self.dataset))
        if self._order[0] != epoch:
            rng = np.random.default_rng([self.seed, epoch])
            self._order = (epoch, rng.permutation(len(self.dataset)))
        return epoch, int(self._order[1][place])

    def __getitem__(self, number: int) -> Any:
        epoch, image = self.locate(number)
        seed_everything(self.seed, epoch, image)
        return self.dataset[image]


class SampleNumbers(Sampler[int]):
    """Sample numbers in order, without end; in several processes each takes every n-th.

    Args:
        dataset: As mmengine hands it over; the numbers do not depend on it.
        seed: As mmengine hands it over; not used, see ``SeededSamples``.
    """

    def __init__(self, dataset: Any = None, seed: int | None = None) -> None:
        self.rank, self.world = get_dist_info()
        self.start = 0

    def __iter__(self) -> Iterator[int]:
        number = self.start
        while True:
            yield number * self.world + self.rank
            number += 1

    def __len__(self) -> int:
        """The largest number that a Python length may be: there is no end."""
        return 2**31 - 1

    def set_epoch(self, epoch: int) -> None:
        """Part of mmengine's interface; sample numbers know their epoch."""

    def skip(self, samples: int) -> None:
        """Leaves out samples that are done; mmengine's loop calls it on resume."""
        self.start += samples
