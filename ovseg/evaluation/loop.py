"""What all evaluations share: images one by one, interruptible, in one process or several."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch.distributed as dist

from ovseg.evaluation.records import Record, RecordFile, read_records

__all__ = ["Loop", "launch", "spread"]

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Loop(Generic[R]):
    """Makes a record of each image. In a process group (``launch``) every process takes its share.

    Attributes:
        settings: What the records depend on.
        make: From the index of an image to its record; a failure is a record too.
        parse: From the data of ``Record.to_dict`` to the record.
    """

    settings: Mapping[str, Any]
    make: Callable[[int], R]
    parse: Callable[[Mapping[str, Any]], R]

    def run(
        self,
        indices: Sequence[int],
        folder: Path | None = None,
        progress: Callable[[], None] | None = None,
    ) -> list[R] | None:
        """The records of some images, by index.

        Args:
            indices: Of the images.
            folder: Where records go as they are made, and come from if an earlier run stopped.
            progress: Called after each image.

        Returns:
            None in processes other than the first.

        Raises:
            ValueError: ``folder`` holds the evaluation of something else.
        """
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        done = {} if folder is None else read_records(folder, self.settings, self.parse)
        if dist.is_initialized():
            dist.barrier()  # all have read before one writes
        share = indices[rank::world]
        mine = [done[i] for i in share if i in done]
        keep = (
            nullcontext() if folder is None else RecordFile(folder / f"records.{rank}.jsonl", self.settings)
        )
        with keep as file:
            for index in (i for i in share if i not in done):
                record = self.make(index)
                mine.append(record)
                if file is not None:
                    file.add(record)
                if progress is not None:
                    progress()
        records = _gathered(mine)
        return None if records is None else sorted(records, key=lambda record: record.index)


def spread(count: int, limit: int | None) -> list[int]:
    """Indices of at most ``limit`` of ``count`` images, evenly over all."""
    if limit is None or limit >= count:
        return list(range(count))
    return [i * count // limit for i in range(limit)]


def launch(launcher: str) -> bool:
    """Joins the process group that ``torchrun`` made, over gloo.

    Args:
        launcher: "none" or "pytorch".

    Returns:
        Whether this is the process that reports.

    Raises:
        ValueError: ``pytorch`` without ``torchrun``.
    """
    if launcher == "none":
        return True
    if "RANK" not in os.environ:
        raise ValueError(
            "--launcher pytorch needs torchrun, as in "
            "`torchrun --nproc-per-node 2 -m ovseg eval MODEL --data emoji --launcher pytorch`"
        )
    dist.init_process_group("gloo")
    return dist.get_rank() == 0


def _gathered(mine: list[R]) -> list[R] | None:
    """The records of all processes, in the first; None in the others."""
    if not dist.is_initialized():
        return mine
    everyone: list[list[R]] | None = [[]] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(mine, everyone)
    return None if everyone is None else [record for part in everyone for record in part]
