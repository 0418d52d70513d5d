"""Zero-shot on ground-truth boxes: what CLIP or RegionCLIP tells apart when localisation is given."""

from mmcv.transforms import LoadImageFromFile
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, Resize
from mmengine.config import read_base

from ovseg.models.detectors import TruthAsProposals

with read_base():
    from .ov_coco_rn50 import *  # noqa: F403

model["localiser"] = None  # noqa: F405
model["data_preprocessor"].update(localiser=None)  # noqa: F405
model["roi_head"]["bbox_head"].update(with_reg=False)  # noqa: F405
model["test_cfg"]["rcnn"].update(soft_sigma=None)  # noqa: F405
custom_hooks[0].update(localiser=None)  # noqa: F405
test_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=LoadAnnotations, with_bbox=True),
    dict(type=Resize, scale=(1333, 800), keep_ratio=True),
    dict(type=TruthAsProposals),
    dict(type=PackDetInputs, meta_keys=meta_keys),  # noqa: F405
]
val_dataloader["dataset"].update(pipeline=test_pipeline)  # noqa: F405
test_dataloader = val_dataloader  # noqa: F405
