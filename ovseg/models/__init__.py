"""The OpenMMLab side: components for configs of mmseg and mmdet, by ``type="ovseg.NAME"`` or class.

``custom_imports = dict(imports=["ovseg.models"])`` is all that a config needs.
"""

from ovseg.ops.mmcv_ext import install

install()  # before anything imports mmcv.ops, as all of mmdet does

from ovseg.datasets import detection, emoji_boxes, emoji_scenes, segmentation  # noqa: E402
from ovseg.models import backbones, decode_heads, detectors, losses, segmentors  # noqa: E402

__all__ = [
    "backbones",
    "decode_heads",
    "detection",
    "detectors",
    "emoji_boxes",
    "emoji_scenes",
    "losses",
    "segmentation",
    "segmentors",
]
