"""mmdet's data sets with base and novel classes."""

from __future__ import annotations

from typing import Any

from ovseg.ops.mmcv_ext import install

install()  # mmdet's data sets import mmcv.ops

from mmdet.datasets import CocoDataset  # noqa: E402

from ovseg.datasets.open_vocabulary import open_vocabulary_split  # noqa: E402
from ovseg.registry import DATASETS  # noqa: E402

__all__ = ["OpenVocabularyCoco", "OpenVocabularyLVIS"]


@DATASETS.register_module()
class OpenVocabularyCoco(CocoDataset):
    """COCO with the classes of one group; ``OVCocoMetric`` finds both groups in its metainfo.

    Args:
        group: ``base`` for training, ``all`` for the generalised evaluation, ``novel`` for the easier one.
        words: Shipped list with the split.
        **kwargs: Of mmdet's ``CocoDataset``.
    """

    def __init__(self, *args: Any, group: str = "all", words: str = "coco_ov65", **kwargs: Any) -> None:
        metainfo = open_vocabulary_split(words).metainfo(group)
        super().__init__(*args, metainfo=metainfo, **kwargs)


@DATASETS.register_module()
class OpenVocabularyLVIS(CocoDataset):
    """LVIS v1 with its 866 frequent and common classes (``base``), or all 1203.

    mmdet's own ``LVISV1Dataset`` needs the ``lvis`` package, and labels boxes by all categories of the file
    whatever the classes are.

    Args:
        group: ``base`` for training, ``all`` for evaluation.
        **kwargs: Of mmdet's ``CocoDataset``; images lie in COCO's folders below ``data_root``.
    """

    def __init__(self, *args: Any, group: str = "all", **kwargs: Any) -> None:
        metainfo = open_vocabulary_split("lvis_v1.regionclip").metainfo(group)
        kwargs.setdefault("data_prefix", {"img": ""})
        super().__init__(*args, metainfo=metainfo, **kwargs)

    def parse_data_info(self, raw_data_info: dict[str, Any]) -> dict[str, Any]:
        """LVIS names an image by its address, whose end is its place in COCO."""
        image = raw_data_info["raw_img_info"]
        image["file_name"] = image["coco_url"].split("/", 3)[-1]
        return super().parse_data_info(raw_data_info)
