"""Zero-shot on the boxes of an RPN trained on LVIS' 866 base classes; it has seen COCO's novel objects."""

from mmdet.models.necks import FPN
from mmengine.config import read_base

with read_base():
    from .ov_coco_rn50 import *  # noqa: F403

localiser = model["localiser"]  # noqa: F405
localiser.update(neck=dict(type=FPN, in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=5))
localiser["backbone"].update(
    num_stages=4, strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1), out_indices=(0, 1, 2, 3)
)
localiser["rpn_head"].update(in_channels=256, feat_channels=256)
localiser["rpn_head"]["anchor_generator"].update(scales=[8], strides=[4, 8, 16, 32, 64])
model["data_preprocessor"].update(  # noqa: F405
    localiser=dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], pad_size_divisor=32)
)
model["roi_head"]["bbox_head"].update(with_reg=False)  # noqa: F405
model["test_cfg"]["rcnn"].update(objectness="raw_logit", soft_sigma=None)  # noqa: F405
custom_hooks[0].update(localiser="pretrained_ckpt/rpn/rpn_lvis_866.pth")  # noqa: F405
