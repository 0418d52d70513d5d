"""EmojiScenes for mmdet: boxes and captions, drawn when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.datasets import BaseDetDataset

from ovseg.datasets.emoji import EmojiScenes, Scene, Split, WordGroup, caption
from ovseg.datasets.emoji.randomness import random_state
from ovseg.registry import DATASETS

__all__ = ["EmojiBoxesDataset", "scene_caption", "scene_instances"]

_CAPTIONS = 11  # stream of random numbers, apart from that of the scenes
_LEAST = 20  # pixels of an object that later ones leave to be seen


def scene_instances(scene: Scene, words: Sequence[int]) -> list[dict[str, Any]]:
    """The objects of a scene as mmdet's ``instances``: the bounds of what is seen of each, and its label.

    Args:
        scene: Drawn with ``words`` only.
        words: Of the word table, in the order of the labels.
    """
    found = []
    for number, word in enumerate(scene.words, start=1):
        rows, columns = np.nonzero(scene.instances == number)
        if len(rows) >= _LEAST:
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            found.append({"bbox": [float(v) for v in box], "bbox_label": words.index(word), "ignore_flag": 0})
    return found


def scene_caption(scenes: EmojiScenes, index: int, scene: Scene) -> str:
    """The caption of a scene, which is number ``index`` of ``scenes``; always the same."""
    return caption(scenes.table, scene, random_state(scenes.seed, _CAPTIONS, index))


@DATASETS.register_module()
class EmojiBoxesDataset(BaseDetDataset):
    """Scenes of EmojiScenes with their boxes; item i is a function of the arguments and i.

    Items hold ``img`` (BGR, as mmcv reads files), ``instances`` and ``gt_caption`` already: pipelines leave
    out the loading of files, and ``LoadAnnotations(with_bbox=True)`` goes on from there.

    Args:
        split: Whose drawings.
        groups: Which words appear; they are the classes.
        size: Pixels of a scene's side.
        length: Number of scenes.
        seed: Other seeds give other scenes.
        scenes: Instead of these, to share the drawings.
        **arguments: Of ``BaseDetDataset``.

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
        scenes: EmojiScenes | None = None,
        **arguments: Any,
    ) -> None:
        self.scenes = scenes or EmojiScenes(split, groups, size=size, length=length, seed=seed)
        table = self.scenes.table
        self.words = table.select(*groups)
        metainfo = {
            "classes": table.names(*groups),
            "base_classes": table.names("base"),
            "novel_classes": tuple(name for name in table.names(*groups) if name not in table.names("base")),
        }
        super().__init__(**{"metainfo": metainfo, **arguments})

    def load_data_list(self) -> list[dict[str, Any]]:
        """One entry for each scene."""
        return [{"img_id": i, "img_path": f"emoji_boxes/{i:05d}.png"} for i in range(len(self.scenes))]

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """The entry with its picture, boxes and caption."""
        info = super().get_data_info(idx)
        scene = self.scenes[info["img_id"]]
        size = scene.image.shape[:2]
        return {
            **info,
            "img": np.ascontiguousarray(scene.image[..., ::-1]),
            "img_shape": size,
            "ori_shape": size,
            "height": size[0],
            "width": size[1],
            "instances": scene_instances(scene, self.words),
            "gt_caption": scene_caption(self.scenes, info["img_id"], scene),
        }
