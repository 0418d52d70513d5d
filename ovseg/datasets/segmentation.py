"""Data sets for mmseg that mmseg does not have, and label maps of any depth for those that need it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.datasets import BaseSegDataset, COCOStuffDataset, PascalVOCDataset

from ovseg.datasets.labels import read_labels, truth_of
from ovseg.inference.source_files import IMAGE_SUFFIXES
from ovseg.registry import DATASETS, TRANSFORMS
from ovseg.vocab.vocabulary import Vocabulary

__all__ = [
    "ADE20K847Dataset",
    "COCOObjectDataset",
    "COCOStuff10kDataset",
    "CamVidDataset",
    "FolderDataset",
    "LoadLabels",
    "PascalContext459Dataset",
    "PascalVOC20Dataset",
]

_DEEP_IGNORE = 65535


@TRANSFORMS.register_module()
class LoadLabels(BaseTransform):
    """Reads ``seg_map_path`` at its full depth; mmseg's ``LoadAnnotations`` cuts labels to 8 bits.

    Adds ``gt_seg_map`` (H, W): uint8 with 255 for pixels that are left out, or uint16 with 65535 where there
    are more than 255 classes. An image of no data set, as from mmseg's ``inference_model``, passes as it is.

    Args:
        num_classes: K.
        ignore_index: Stored number of pixels that are left out.

    Raises:
        ValueError: A label has no class, or a data set has no labels.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        self.num_classes, self.ignore_index = num_classes, ignore_index

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Adds the label map to ``results``."""
        path = results.get("seg_map_path")
        if path is None:
            if "seg_fields" not in results:  # which data sets give
                return results
            raise ValueError(
                f"no labels for {results.get('img_path')}; give the data set's data_prefix seg_map_path"
            )
        truth = truth_of(
            read_labels(path),
            self.num_classes,
            ignore_index=self.ignore_index,
            reduce_zero_label=results.get("reduce_zero_label", False),
            label_map=results.get("label_map"),
            source=path,
        )
        kind = np.uint8 if self.num_classes < 256 else np.uint16
        results["gt_seg_map"] = np.where(truth < 0, np.iinfo(kind).max, truth).astype(kind)
        results.setdefault("seg_fields", []).append("gt_seg_map")
        return results


def _names(words: str) -> tuple[str, ...]:
    return Vocabulary.of(words).names


@DATASETS.register_module()
class PascalVOC20Dataset(BaseSegDataset):
    """Pascal VOC without background: its pixels (stored 0) are left out."""

    METAINFO = {  # noqa: RUF012
        "classes": PascalVOCDataset.METAINFO["classes"][1:],
        "palette": PascalVOCDataset.METAINFO["palette"][1:],
    }

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**{"reduce_zero_label": True, **arguments})


@DATASETS.register_module()
class COCOStuff10kDataset(COCOStuffDataset):
    """COCO-Stuff 10k, stored as 1..171 with 0 left out."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**{"reduce_zero_label": True, **arguments})


@DATASETS.register_module()
class COCOObjectDataset(BaseSegDataset):
    """COCO's 80 things and background, from COCO-Stuff's maps: stuff and unlabelled pixels are background.

    There is no pixel that is left out.
    """

    METAINFO = {  # noqa: RUF012
        "classes": ("background", *COCOStuffDataset.METAINFO["classes"][:80]),
        "palette": [[0, 0, 0], *COCOStuffDataset.METAINFO["palette"][:80]],
    }

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**{"seg_map_suffix": "_instanceTrainIds.png", **arguments})


@DATASETS.register_module()
class ADE20K847Dataset(BaseSegDataset):
    """ADE20K with all its labels, 16 bits, 65535 left out."""

    METAINFO = {"classes": _names("ade847.san")}  # noqa: RUF012

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**{"seg_map_suffix": ".tif", "ignore_index": _DEEP_IGNORE, **arguments})


@DATASETS.register_module()
class PascalContext459Dataset(BaseSegDataset):
    """Pascal Context with all its labels, 16 bits, 65535 left out."""

    METAINFO = {"classes": _names("context459.proxyclip")}  # noqa: RUF012

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**{"seg_map_suffix": ".tif", "ignore_index": _DEEP_IGNORE, **arguments})


@DATASETS.register_module()
class CamVidDataset(BaseSegDataset):
    """CamVid in the 11 classes of SegNet; stored 11 is left out."""

    METAINFO = {  # noqa: RUF012
        "classes": (
            "sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car",
            "pedestrian", "bicyclist",
        ),
        "palette": [
            [128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [60, 40, 222], [128, 128, 0],
            [192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0], [0, 128, 192],
        ],
    }  # fmt: skip

    def load_data_list(self) -> list[dict[str, Any]]:
        """As mmseg's, with the stored 11 mapped to the number that is left out."""
        return [
            {**info, "label_map": {**(info["label_map"] or {}), 11: self.ignore_index}}
            for info in super().load_data_list()
        ]


@DATASETS.register_module()
class FolderDataset(BaseSegDataset):
    """A data set of your own: ``images/``, ``masks/`` and ``classes.txt`` in one folder.

    Masks are indexed or greyscale PNG or TIFF files with the images' names (``street/1.jpg`` goes with
    ``street/1.png``); number k is line k of ``classes.txt``, counted from 0, in the form of
    ``Vocabulary.of``. 255 is left out (65535 with more than 255 classes).

    Args:
        data_root: The folder.
        split: Sub-folder of ``images`` and ``masks``; by default all files.
        classes: File of class names, relative to ``data_root``.
        **arguments: Of ``BaseSegDataset``.

    Raises:
        FileNotFoundError: A folder or the class list is missing, or an image has no mask.
    """

    def __init__(
        self, data_root: str, split: str = "", classes: str = "classes.txt", **arguments: Any
    ) -> None:
        root = Path(data_root)
        for needed in (root / "images" / split, root / "masks" / split, root / classes):
            if not needed.exists():
                raise FileNotFoundError(
                    f"{needed} is missing: a data set of your own has images/, masks/ and {classes}"
                )
        self.vocabulary = Vocabulary.of(root / classes)
        defaults = {
            "data_prefix": {"img_path": f"images/{split}", "seg_map_path": f"masks/{split}"},
            "metainfo": {
                "classes": self.vocabulary.names, "palette": self.vocabulary.palette.tolist()
            },
            "ignore_index": 255 if len(self.vocabulary) < 256 else _DEEP_IGNORE,
        }  # fmt: skip
        super().__init__(data_root=str(root), **{**defaults, **arguments})

    def load_data_list(self) -> list[dict[str, Any]]:
        """One entry for each image, in the order of their names."""
        images, masks = (Path(self.data_prefix[key]) for key in ("img_path", "seg_map_path"))
        found = sorted(p for p in images.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        return [
            {
                "img_path": str(path),
                "seg_map_path": str(_mask_of(masks / path.relative_to(images), (".png", ".tif", ".tiff"))),
                "label_map": self.label_map,
                "reduce_zero_label": self.reduce_zero_label,
                "seg_fields": [],
            }
            for path in found
        ]


def _mask_of(path: Path, suffixes: Sequence[str]) -> Path:
    for suffix in suffixes:
        if (mask := path.with_suffix(suffix)).is_file():
            return mask
    raise FileNotFoundError(
        f"no mask {path.with_suffix(suffixes[0])}: every image needs one of the same name"
    )
