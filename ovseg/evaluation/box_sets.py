"""What detection is evaluated on: images, their true boxes, words, groups of classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg.datasets.open_vocabulary import restrict_annotations
from ovseg.evaluation.ground_truth import GroundTruth, parse_ground_truth, read_annotations
from ovseg.vocab.shipped import read_list
from ovseg.vocab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ovseg.datasets.emoji import Drawings, Split, WordGroup
    from ovseg.inference.images import ImageSource

__all__ = ["BOX_SETS", "BoxSet", "emoji_boxes", "is_box_set", "open_box_set"]

BOX_SETS = ("emoji_boxes", "ov_coco", "ov_lvis")
"""Names for ``open_box_set``."""

_WORDS: tuple[WordGroup, ...] = ("base", "novel", "unknown")


@dataclass(frozen=True)
class BoxSet:
    """Images with their true boxes.

    Attributes:
        name: Of the data set.
        split: Which part.
        truths: Of each image.
        image: From the index of an image to what ``read_image`` takes.
        vocabulary: Words to ask for; its classes are those of the labels.
        groups: Class indices by name of a group.
        limit: Most detections of an image.
        threshold: Scores of detections exceed it.
        seed: Where images are drawn at random.
    """

    name: str
    split: str
    truths: Sequence[GroundTruth]
    image: Callable[[int], ImageSource]
    vocabulary: Vocabulary
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    limit: int = 100
    threshold: float = 1e-3
    seed: int | None = None

    def __len__(self) -> int:
        return len(self.truths)


def is_box_set(data: str) -> bool:
    """Whether ``open_box_set`` is meant: one of ``BOX_SETS``, or an annotation file."""
    return data in BOX_SETS or data.endswith(".json")


def open_box_set(
    data: str,
    data_root: str | Path = "data",
    split: str | None = None,
    vocabulary: Vocabulary | None = None,
    novel: Sequence[str] = (),
) -> BoxSet:
    """A data set by name, or from an annotation file in COCO's layout.

    Args:
        data: ``emoji_boxes``; ``ov_coco``; ``ov_lvis``; or a ``.json`` file, whose images lie beside it or in
            ``images/`` beside it.
        data_root: COCO's folder, or the folder that holds it as ``coco``; it has LVIS's annotations too.
        split: By default the one that figures are published for.
        vocabulary: Words in place of the default ones; as many classes, in order.
        novel: Names of classes that make the group "novel"; the others are "base".

    Raises:
        ValueError: There is no such split or class, or the vocabulary or the file does not fit.
        FileNotFoundError: Files are missing; the message says which tool prepares them.
    """
    if data == "emoji_boxes":
        found = emoji_boxes(split or "test")  # type: ignore[arg-type]
    elif data in _OPEN_VOCABULARY:
        found = _OPEN_VOCABULARY[data](Path(data_root), split or "val")
    else:
        found = _own(Path(data))
    words = vocabulary or found.vocabulary
    if len(words) != len(found.vocabulary):
        raise ValueError(
            f"{len(words)} classes are given, {data} has {len(found.vocabulary)}: name all, in its order "
            f"({', '.join(found.vocabulary.names[:4])}, ...)"
        )
    groups = _novel_groups(found.vocabulary.names, novel, data) if novel else found.groups
    return replace(found, vocabulary=words, groups=groups)


def emoji_boxes(
    split: Split = "test",
    groups: Sequence[WordGroup] = _WORDS,
    *,
    length: int = 200,
    size: int = 224,
    seed: int = 7,
    drawings: Drawings | None = None,
) -> BoxSet:
    """Objects in scenes of EmojiScenes, by the bounds of what is seen of them.

    Args:
        split: Whose drawings: of the held-out artist by default; choose on ``val``.
        groups: Which words appear and are asked for; each is a group.
        length: Number of scenes.
        size: Pixels of a scene's side.
        seed: Other seeds give other scenes.
        drawings: Read from the cache folder by default.

    Raises:
        FileNotFoundError: The drawings have not been prepared.
        ValueError: There is no such split.
    """
    from ovseg.datasets.emoji import EmojiScenes
    from ovseg.datasets.emoji_scenes import coco_annotations

    if split not in ("train", "val", "test"):
        raise ValueError(f"emoji_boxes has no split {split!r}; one of train, val, test")
    scenes = EmojiScenes(split, groups, size=size, length=length, seed=seed, drawings=drawings)
    drawn = [scenes[i] for i in range(length)]
    names = scenes.table.names(*groups)
    by_group: dict[str, tuple[int, ...]] = {
        group: tuple(i for i, name in enumerate(names) if name in set(scenes.table.names(group)))
        for group in groups
    }
    truths = tuple(parse_ground_truth(coco_annotations(drawn, groups), names))
    return BoxSet(
        "emoji_boxes",
        split,
        truths,
        lambda i: drawn[i].image,
        Vocabulary.of(list(names)),
        by_group,
        seed=seed,
    )


def _coco(root: Path, split: str) -> BoxSet:
    """OV-COCO in the generalised setting: all 65 classes are asked for at once."""
    folder, path = _find(root, f"annotations/instances_{split}2017.json", "ov_coco", "COCO 2017")
    entries = read_list("coco_ov65")["classes"]
    names = [entry["name"] for entry in entries]
    truths = tuple(parse_ground_truth(restrict_annotations(read_annotations(path), names), names))
    images, words = folder / f"{split}2017", Vocabulary.of("coco_ov65")
    return BoxSet(
        "ov_coco",
        split,
        truths,
        lambda i: images / truths[i].file_name,
        words,
        _groups(entries, "group", {"base": "base", "novel": "novel"}),
    )


def _lvis(root: Path, split: str) -> BoxSet:
    """OV-LVIS: rare classes are novel, common and frequent ones base."""
    folder, path = _find(root, f"annotations/lvis_v1_{split}.json", "ov_lvis", "LVIS v1")
    entries = read_list("lvis_v1.regionclip")["classes"]
    truths = tuple(parse_ground_truth(read_annotations(path), [entry["name"] for entry in entries]))
    return BoxSet(
        "ov_lvis",
        split,
        truths,
        lambda i: folder / truths[i].file_name,  # with COCO's folder, which is not the same for all
        Vocabulary.of("lvis_v1.regionclip"),
        _groups(entries, "group", {"base": "base", "novel": "novel"})
        | _groups(entries, "frequency", {"rare": "r", "common": "c", "frequent": "f"}),
        limit=300,
        threshold=1e-4,
    )


def _groups(
    entries: Sequence[Mapping[str, str]], key: str, values: Mapping[str, str]
) -> dict[str, tuple[int, ...]]:
    """Indices of the entries by the value of a key, under the values' own names."""
    return {
        name: tuple(i for i, entry in enumerate(entries) if entry[key] == value)
        for name, value in values.items()
    }


_OPEN_VOCABULARY: Mapping[str, Callable[[Path, str], BoxSet]] = {"ov_coco": _coco, "ov_lvis": _lvis}


def _find(root: Path, file: str, name: str, title: str) -> tuple[Path, Path]:
    """COCO's folder, and a file in it."""
    for folder in (root, root / "coco"):
        if (folder / file).is_file():
            return folder, folder / file
    raise FileNotFoundError(
        f"no {name} at {root}: neither {file} nor coco/{file} is there. Download {title}'s annotations and "
        "COCO's images, and give COCO's folder with --data-root"
    )


def _own(path: Path) -> BoxSet:
    document = read_annotations(path)
    names = tuple(category["name"] for category in document["categories"])
    truths = tuple(parse_ground_truth(document, names))
    folder = path.parent / "images" if (path.parent / "images").is_dir() else path.parent
    return BoxSet(
        path.stem, "all", truths, lambda i: folder / truths[i].file_name, Vocabulary.of(list(names))
    )


def _novel_groups(names: Sequence[str], novel: Sequence[str], data: str) -> dict[str, tuple[int, ...]]:
    if unknown := [name for name in novel if name not in names]:
        raise ValueError(f"{data} has no class {unknown[0]!r}; there are: {', '.join(names)}")
    chosen = tuple(i for i, name in enumerate(names) if name in novel)
    return {"base": tuple(i for i in range(len(names)) if i not in chosen), "novel": chosen}
