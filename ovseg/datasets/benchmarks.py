"""The segmentation benchmarks by name: where files lie, how labels are stored, which words go with them.

Importable without torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["BENCHMARKS", "Benchmark", "benchmark", "find_root"]


@dataclass(frozen=True)
class Benchmark:
    """One data set and its splits.

    Attributes:
        name: For ``--data``, and where it exists the name of its word list.
        title: As people write it.
        type: Name of the data set's class in mmseg, or with ``ovseg.`` in this package.
        folder: Conventional place below a folder of all data sets.
        images: Folder of the images in the data set's, with ``{split}``.
        labels: The same of the label maps.
        split: Split that is evaluated by default.
        splits: What ``{split}`` stands for.
        lists: File with the names of a split's images, with ``{split}``, where not the whole folder counts.
        words: Default word list.
        counts: Number of images by split, as published.
        prepare: Tool that converts the official download.
    """

    name: str
    title: str
    type: str
    folder: str
    images: str
    labels: str
    prepare: str
    split: str = "val"
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "val": "val"})
    lists: str | None = None
    words: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)

    def config(self, root: str | Path, split: str | None = None) -> dict[str, object]:
        """Arguments of the data set's class, without a pipeline.

        Args:
            root: The data set's own folder, as ``find_root`` gives it.
            split: A key of ``splits``.

        Raises:
            ValueError: There is no such split.
        """
        split = split or self.split
        if split not in self.splits:
            raise ValueError(f"{self.name} has no split {split!r}; one of {', '.join(self.splits)}")
        name = self.splits[split]
        config: dict[str, object] = {
            "type": self.type,
            "data_root": str(root),
            "data_prefix": {
                "img_path": self.images.format(split=name), "seg_map_path": self.labels.format(split=name)
            },
        }  # fmt: skip
        if self.lists is not None:
            config["ann_file"] = self.lists.format(split=name)
        return config


_VOC = "VOCdevkit/VOC2012"
_CONTEXT = "VOCdevkit/VOC2010"
_ADE_SPLITS = {"train": "training", "val": "validation"}
_COCO_SPLITS = {"train": "train2017", "val": "val2017"}
_VOC_LISTS = "ImageSets/Segmentation/{split}.txt"
_CONTEXT_LISTS = "ImageSets/SegmentationContext/{split}.txt"

_ROWS = (
    Benchmark(
        "voc21", "Pascal VOC 2012 with background", "mmseg.PascalVOCDataset", _VOC, "JPEGImages",
        "SegmentationClass", "voc", lists=_VOC_LISTS, words="voc21", counts={"train": 1464, "val": 1449},
    ),
    Benchmark(
        "voc20", "Pascal VOC 2012 without background", "ovseg.PascalVOC20Dataset", _VOC, "JPEGImages",
        "SegmentationClass", "voc", lists=_VOC_LISTS, words="voc20", counts={"train": 1464, "val": 1449},
    ),
    Benchmark(
        "voc20b",
        "Pascal VOC 2012 with background, asked for with the words of Pascal Context",
        "mmseg.PascalVOCDataset",
        _VOC,
        "JPEGImages",
        "SegmentationClass",
        "voc",
        lists=_VOC_LISTS,
        words="voc20b",
        counts={"train": 1464, "val": 1449},
    ),
    Benchmark(
        "context60", "Pascal Context with background", "mmseg.PascalContextDataset", _CONTEXT, "JPEGImages",
        "SegmentationClassContext", "context", lists=_CONTEXT_LISTS, words="context60",
        counts={"train": 4996, "val": 5104},
    ),
    Benchmark(
        "context59", "Pascal Context without background", "mmseg.PascalContextDataset59", _CONTEXT,
        "JPEGImages", "SegmentationClassContext", "context", lists=_CONTEXT_LISTS, words="context59",
        counts={"train": 4996, "val": 5104},
    ),
    Benchmark(
        "context459", "Pascal Context, all labels", "ovseg.PascalContext459Dataset", _CONTEXT, "JPEGImages",
        "SegmentationClassContext459", "context", lists=_CONTEXT_LISTS, words="context459",
        counts={"train": 4996, "val": 5104},
    ),
    Benchmark(
        "ade150", "ADE20K", "mmseg.ADE20KDataset", "ade/ADEChallengeData2016", "images/{split}",
        "annotations/{split}", "ade", splits=_ADE_SPLITS, words="ade150",
        counts={"train": 20210, "val": 2000},
    ),
    Benchmark(
        "ade847", "ADE20K, all labels", "ovseg.ADE20K847Dataset", "ade/ADE20K_2021_17_01",
        "images_detectron2/{split}", "annotations_detectron2/{split}", "ade_full", splits=_ADE_SPLITS,
        words="ade847", counts={"train": 25574, "val": 2000},
    ),
    Benchmark(
        "coco_stuff171", "COCO-Stuff 164k", "mmseg.COCOStuffDataset", "coco_stuff164k", "images/{split}",
        "annotations/{split}", "coco_stuff", splits=_COCO_SPLITS, words="coco_stuff171",
        counts={"train": 118287, "val": 5000},
    ),
    Benchmark(
        "coco_stuff10k", "COCO-Stuff 10k", "ovseg.COCOStuff10kDataset", "coco_stuff10k", "images/{split}",
        "annotations/{split}", "coco_stuff10k", split="test",
        splits={"train": "train2014", "test": "test2014"}, words="coco_stuff171",
        counts={"train": 9000, "test": 1000},
    ),
    Benchmark(
        "coco_object", "COCO-Object", "ovseg.COCOObjectDataset", "coco_stuff164k", "images/{split}",
        "annotations/{split}", "coco_stuff", splits=_COCO_SPLITS, words="coco_object",
        counts={"train": 118287, "val": 5000},
    ),
    Benchmark(
        "cityscapes", "Cityscapes", "mmseg.CityscapesDataset", "cityscapes", "leftImg8bit/{split}",
        "gtFine/{split}", "cityscapes", words="cityscapes", counts={"train": 2975, "val": 500},
    ),
    Benchmark(
        "camvid", "CamVid, 11 classes", "ovseg.CamVidDataset", "camvid", "images/{split}",
        "annotations/{split}", "camvid", split="test",
        splits={"train": "train", "val": "val", "test": "test"},
        counts={"train": 367, "val": 101, "test": 233},
    ),
)  # fmt: skip

BENCHMARKS: Mapping[str, Benchmark] = {row.name: row for row in _ROWS}
"""Every benchmark by name."""


def benchmark(name: str) -> Benchmark:
    """A benchmark by name.

    Raises:
        ValueError: There is none; near names are listed.
    """
    if name not in BENCHMARKS:
        near = difflib.get_close_matches(name, BENCHMARKS, n=3, cutoff=0.5) or list(BENCHMARKS)
        raise ValueError(
            f"unknown data set {name!r}; there are: {', '.join(near)}, emoji, or a folder of your own"
        )
    return BENCHMARKS[name]


def find_root(row: Benchmark, data_root: str | Path, split: str | None = None) -> Path:
    """The data set's own folder: ``data_root`` itself, or its conventional place below.

    Raises:
        FileNotFoundError: Neither holds the split; the message says what was looked for.
    """
    images = str(row.config("", split)["data_prefix"]["img_path"])  # type: ignore[index]
    for root in (Path(data_root), Path(data_root) / row.folder):
        if (root / images).is_dir():
            return root
    raise FileNotFoundError(
        f"no {row.name} at {data_root}: neither {images} nor {row.folder}/{images} is there. Download it, "
        f"run `python tools/prepare/{row.prepare}.py --help`, and give its folder with --data-root"
    )
