"""A localiser for EmojiScenes: an RPN on the embedded tower's first blocks, trained on boxes of base words.

All words are one class to it, so that it finds things of other words too. About three minutes of one core.
"""

from mmdet.models import CrossEntropyLoss, DetDataPreprocessor, L1Loss
from mmdet.models.task_modules import MaxIoUAssigner, RandomSampler
from mmengine.config import read_base
from mmengine.optim import LinearLR, OptimWrapper
from mmengine.optim.scheduler import CosineAnnealingLR
from mmengine.runner import IterBasedTrainLoop
from torch.optim import AdamW

from ovseg.models.detectors import RPN
from ovseg.training.hooks import PlainCheckpoint

with read_base():
    from .._base_.datasets.emoji_boxes import *  # noqa: F403
    from .._base_.models.region_clip_vit_tiny import *  # noqa: F403
    from .._base_.runtime.detection import *  # noqa: F403

rpn_head.update(  # noqa: F405
    loss_cls=dict(type=CrossEntropyLoss, use_sigmoid=True), loss_bbox=dict(type=L1Loss)
)
model = dict(
    type=RPN,
    data_preprocessor=dict(
        type=DetDataPreprocessor,
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
        bgr_to_rgb=True,
    ),
    backbone=backbone,  # noqa: F405
    neck=neck,  # noqa: F405
    rpn_head=rpn_head,  # noqa: F405
    train_cfg=dict(
        rpn=dict(
            assigner=dict(type=MaxIoUAssigner, pos_iou_thr=0.6, neg_iou_thr=0.3, min_pos_iou=0.3),
            sampler=dict(type=RandomSampler, num=128, pos_fraction=0.5, add_gt_as_proposals=False),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        )
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=1000, max_per_img=100, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0)
    ),
)
steps = 350
train_cfg = dict(type=IterBasedTrainLoop, max_iters=steps)
val_dataloader = val_evaluator = test_dataloader = test_evaluator = None
optim_wrapper = dict(
    type=OptimWrapper, optimizer=dict(type=AdamW, lr=1e-3, weight_decay=0.01), clip_grad=dict(max_norm=5.0)
)
param_scheduler = [
    dict(type=LinearLR, start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type=CosineAnnealingLR, T_max=steps, eta_min=0, by_epoch=False),
]
custom_hooks = [dict(type=PlainCheckpoint, trained_only=False)]
default_hooks.pop("visualization")  # noqa: F405  # scenes are no files
default_hooks["checkpoint"].update(interval=100, max_keep_ckpts=1)  # noqa: F405
