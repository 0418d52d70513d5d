"""What is evaluated on: images, their true classes, and names, behind one small interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mmengine.dataset import BaseDataset
from numpy.typing import NDArray

from ovseg.datasets.benchmarks import BENCHMARKS, Benchmark, benchmark, find_root
from ovseg.datasets.labels import read_labels, truth_of
from ovseg.vocab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from mmseg.datasets import BaseSegDataset

    from ovseg.datasets.emoji import Drawings, Split, WordGroup
    from ovseg.inference.images import ImageSource

__all__ = ["EvaluationSet", "dataset_class", "emoji_set", "open_set"]


@dataclass(frozen=True)
class EvaluationSet:
    """Images with their true classes.

    Attributes:
        name: Of the data set.
        split: Which part.
        dataset: Of mmseg's kind, whose label maps are read here at their full depth.
        vocabulary: Words to ask for.
        order: Class of the data set, 0..K-1, of each class of the vocabulary.
        groups: Class indices by name of a group, such as base and novel.
        seed: Where images are drawn at random.
    """

    name: str
    split: str
    dataset: BaseSegDataset
    vocabulary: Vocabulary
    order: tuple[int, ...]
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    seed: int | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def classes(self) -> tuple[str, ...]:
        """K names, as the data set has them."""
        return tuple(self.dataset.metainfo["classes"])

    def label(self, index: int) -> str:
        """A name for image ``index``."""
        return str(self._info(index)["img_path"])

    def _info(self, index: int) -> dict[str, Any]:
        """The data set's entry, without drawing a scene for it."""
        return BaseDataset.get_data_info(self.dataset, index)

    def image(self, index: int) -> ImageSource:
        """What ``Predictor.segment`` takes."""
        if "scene" in self._info(index):
            return np.ascontiguousarray(self.dataset.get_data_info(index)["img"][..., ::-1])
        return self.label(index)

    def truth(self, index: int) -> NDArray[np.int32]:
        """(H, W) classes, -1 where pixels are left out.

        Raises:
            LabelError: The label map cannot be read.
        """
        info = self._info(index)
        drawn = "scene" in info
        labels = (
            self.dataset.get_data_info(index)["gt_seg_map"].astype(np.int32)
            if drawn
            else read_labels(info["seg_map_path"])
        )
        return truth_of(
            labels,
            len(self.classes),
            ignore_index=self.dataset.ignore_index,
            reduce_zero_label=info["reduce_zero_label"],
            label_map=info.get("label_map"),
            source=info["img_path" if drawn else "seg_map_path"],
        )


def open_set(
    data: str,
    data_root: str | Path = "data",
    split: str | None = None,
    vocabulary: Vocabulary | None = None,
    novel: Sequence[str] = (),
) -> EvaluationSet:
    """A data set by name, or a folder of one's own.

    Args:
        data: A benchmark ("ade150"), "emoji", or a folder with images/, masks/ and classes.txt.
        data_root: Where the files of a benchmark lie.
        split: By default the one that figures are published for.
        vocabulary: Words in place of the default ones; its classes are the data set's, in order.
        novel: Names of classes that make the group "novel"; the others are "base".

    Raises:
        ValueError: There is no such data set, split or class, or the vocabulary does not fit.
        FileNotFoundError: Files are missing; the message says which tool prepares them.
    """
    if data == "emoji":
        found = emoji_set(split or "test")  # type: ignore[arg-type]
    elif data not in BENCHMARKS and Path(data).is_dir():
        found = _folder(Path(data), split)
    else:
        found = _benchmark(benchmark(data), data_root, split)
    words = vocabulary or found.vocabulary
    return replace(
        found, vocabulary=words, order=_order(words, found.classes, data), groups=_split_groups(found, novel)
    )


def _order(words: Vocabulary, classes: Sequence[str], data: str) -> tuple[int, ...]:
    """The data set's class of each class of a vocabulary.

    Lists follow their data set's order, but for two: CLIPtrase's have background last, and "voc20b" has after
    the objects 39 words that all stand for background.
    """
    count, background = len(classes), classes[0] == "background"
    if words.name.startswith("voc20b") and background:
        return (*range(1, count), *[0] * (len(words) - count + 1))
    if len(words) != count:
        raise ValueError(
            f"{len(words)} classes are given, {data} has {count}: name all, in its order "
            f"({', '.join(classes[:4])}, ...)"
        )
    if background and words.classes[-1].is_background and not words.classes[0].is_background:
        return (*range(1, count), 0)
    return tuple(range(count))


def _split_groups(data: EvaluationSet, novel: Sequence[str]) -> Mapping[str, tuple[int, ...]]:
    if not novel:
        return data.groups
    if unknown := [name for name in novel if name not in data.classes]:
        raise ValueError(f"{data.name} has no class {unknown[0]!r}; there are: {', '.join(data.classes)}")
    chosen = tuple(i for i, name in enumerate(data.classes) if name in novel)
    return {"base": tuple(i for i in range(len(data.classes)) if i not in chosen), "novel": chosen}


def dataset_class(row: Benchmark) -> type[BaseSegDataset]:
    """The class of a benchmark."""
    import mmseg.datasets

    import ovseg.datasets.segmentation as own

    scope, _, name = row.type.partition(".")
    return getattr(mmseg.datasets if scope == "mmseg" else own, name)


def _benchmark(row: Benchmark, data_root: str | Path, split: str | None) -> EvaluationSet:
    split = split or row.split
    config = row.config(find_root(row, data_root, split), split)
    cls = dataset_class(row)
    dataset = cls(**{key: value for key, value in config.items() if key != "type"}, serialize_data=False)
    if not len(dataset):
        raise FileNotFoundError(f"{config['data_root']} holds no image of {row.name}'s {split} split")
    first = dataset.data_list[0]["seg_map_path"]
    if not Path(first).is_file():
        raise FileNotFoundError(
            f"there is no label map {first}: run `python tools/prepare/{row.prepare}.py FOLDER` first "
            "(--help says which folder)"
        )
    classes = list(dataset.metainfo["classes"])
    words = Vocabulary.of(row.words or classes)
    return EvaluationSet(row.name, split, dataset, words, _order(words, classes, row.name))


def _folder(folder: Path, split: str | None) -> EvaluationSet:
    from ovseg.datasets.segmentation import FolderDataset

    dataset = FolderDataset(str(folder), split or "", serialize_data=False)
    words = dataset.vocabulary
    return EvaluationSet(folder.resolve().name, split or "all", dataset, words, tuple(range(len(words))))


def emoji_set(
    split: Split = "test",
    groups: Sequence[WordGroup] = ("base", "novel"),
    *,
    length: int = 100,
    size: int = 224,
    seed: int = 7,
    classes: Sequence[WordGroup] | None = None,
    drawings: Drawings | None = None,
) -> EvaluationSet:
    """Scenes of EmojiScenes; classes are words and textures.

    Args:
        split: Whose drawings: of the held-out artist by default.
        groups: Which words appear.
        length: Number of scenes.
        size: Pixels of a scene's side.
        seed: Other seeds give other scenes.
        classes: Which words are classes, ``groups`` among them; by default those.
        drawings: Read from the cache folder by default.

    Raises:
        FileNotFoundError: The drawings have not been prepared.
        ValueError: There is no such split.
    """
    from ovseg.datasets.emoji import EmojiScenes
    from ovseg.datasets.emoji_scenes import EmojiScenesDataset

    if split not in ("train", "val", "test"):
        raise ValueError(f"emoji has no split {split!r}; one of train, val, test")
    scenes = EmojiScenes(split, groups, size=size, length=length, seed=seed, drawings=drawings)
    candidates = classes or groups
    dataset = EmojiScenesDataset(groups=candidates, scenes=scenes, serialize_data=False)
    names = dataset.metainfo["classes"]
    parts: dict[str, tuple[int, ...]] = {}
    by_group = {word.name: word.group for word in scenes.table.words}
    for group in (*candidates, "textures"):
        parts[group] = tuple(i for i, name in enumerate(names) if by_group.get(name, "textures") == group)
    words = Vocabulary.of(list(names))
    return EvaluationSet("emoji", split, dataset, words, tuple(range(len(words))), parts, seed)
