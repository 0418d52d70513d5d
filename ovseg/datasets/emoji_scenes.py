"""EmojiScenes for mmseg (drawn when they are asked for) and for mmdet (written in COCO's format)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmseg.datasets import BaseSegDataset
from numpy.typing import NDArray
from PIL import Image

from ovseg._files import atomic_path
from ovseg.datasets.emoji import EmojiScenes, Scene, Split, WordGroup, WordTable, word_table
from ovseg.registry import DATASETS

__all__ = ["BASE_CLASSES", "EmojiScenesDataset", "coco_annotations", "semantic_map", "write_scenes"]

BASE_CLASSES = (*word_table().names("base"), *word_table().textures)
"""What trainings on base words know: the classes of ``EmojiScenesDataset`` by default."""


def semantic_map(
    scene: Scene, table: WordTable, groups: Sequence[WordGroup], textures: bool = True
) -> NDArray[np.uint8]:
    """(S, S) class of each pixel: words of the groups in order, then the textures.

    Args:
        scene: Drawn with words of the groups only.
        table: The words.
        groups: Which words are classes.
        textures: Whether textures are classes; else they are left out (255).
    """
    words = table.select(*groups)
    under = len(words) + scene.texture if textures else 255
    classes = np.array([under, *(words.index(word) for word in scene.words)], np.uint8)
    return classes[scene.instances]


@DATASETS.register_module()
class EmojiScenesDataset(BaseSegDataset):
    """Scenes of EmojiScenes, drawn when they are asked for: item i is a function of the arguments and i.

    Items hold ``img`` (BGR, as mmcv reads files) and ``gt_seg_map`` already: pipelines leave out the loading.

    Args:
        split: Whose drawings.
        groups: Which words appear; with the textures they are the classes.
        size: Pixels of a scene's side.
        length: Number of scenes.
        seed: Other seeds give other scenes.
        textures: Whether textures are classes, or left out (255).
        scenes: Instead of these, to share the drawings.
        **arguments: Of ``BaseSegDataset``.

    Raises:
        FileNotFoundError: The drawings have not been prepared.
    """

    def __init__(
        self,
        split: Split = "train",
        groups: Sequence[WordGroup] = ("base",),
        *,
        size: int = 224,
        length: int = 1000,
        seed: int = 0,
        textures: bool = True,
        scenes: EmojiScenes | None = None,
        **arguments: Any,
    ) -> None:
        self.groups, self.textures = tuple(groups), textures
        self.scenes = scenes or EmojiScenes(split, groups, size=size, length=length, seed=seed)
        table = self.scenes.table
        classes = (*table.names(*groups), *(table.textures if textures else ()))
        super().__init__(**{"metainfo": {"classes": classes}, **arguments})

    def load_data_list(self) -> list[dict[str, Any]]:
        """One entry for each scene."""
        kind = f"emoji/{self.scenes.split}/{'+'.join(self.groups)}"
        return [
            {"img_path": f"{kind}/{i:05d}.png", "scene": i, "reduce_zero_label": False, "seg_fields": []}
            for i in range(len(self.scenes))
        ]

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """The entry with its picture and labels."""
        info = super().get_data_info(idx)
        scene = self.scenes[info["scene"]]
        return {
            **info,
            "img": np.ascontiguousarray(scene.image[..., ::-1]),
            "img_shape": scene.image.shape[:2],
            "ori_shape": scene.image.shape[:2],
            "gt_seg_map": semantic_map(scene, self.scenes.table, self.groups, self.textures),
            "seg_fields": ["gt_seg_map"],
        }


def coco_annotations(scenes: Sequence[Scene], groups: Sequence[WordGroup]) -> dict[str, Any]:
    """Boxes and masks of the objects in COCO's format, masks as run lengths.

    Args:
        scenes: Drawn with words of the groups only.
        groups: Which words are categories; ids count from 1.
    """
    from pycocotools import mask as rle

    table = word_table()
    words = table.select(*groups)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i, scene in enumerate(scenes):
        height, width = scene.instances.shape
        images.append({"id": i + 1, "file_name": f"{i:05d}.png", "height": height, "width": width})
        for number, word in enumerate(scene.words, start=1):
            mask = scene.instances == number
            if not mask.any():
                continue  # hidden by a later object
            coded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i + 1,
                    "category_id": words.index(word) + 1,
                    "bbox": rle.toBbox(coded).tolist(),
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                    "segmentation": {"size": coded["size"], "counts": coded["counts"].decode()},
                }
            )
    categories = [
        {"id": i + 1, "name": table.words[word].name, "supercategory": table.words[word].group}
        for i, word in enumerate(words)
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_scenes(folder: Path, scenes: EmojiScenes, groups: Sequence[WordGroup]) -> None:
    """Writes ``images/``, ``masks/``, ``classes.txt`` (a ``FolderDataset``) and ``instances.json`` (COCO).

    Args:
        folder: Where to.
        scenes: What to write.
        groups: Words that are classes, those of the scenes among them.

    Raises:
        WriteError: The folder cannot be written.
    """
    drawn = []
    for i, scene in enumerate(scenes):
        labels = semantic_map(scene, scenes.table, groups)
        for kind, pixels in (("images", scene.image), ("masks", labels)):
            with atomic_path(folder / kind / f"{i:05d}.png") as path:
                Image.fromarray(pixels).save(path, optimize=True)
        drawn.append(scene)
    names = (*scenes.table.names(*groups), *scenes.table.textures)
    with atomic_path(folder / "classes.txt") as path:
        path.write_text("\n".join(names) + "\n", encoding="utf-8")
    with atomic_path(folder / "instances.json") as path:
        path.write_text(json.dumps(coco_annotations(drawn, groups)), encoding="utf-8")
