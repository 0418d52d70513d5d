"""RegionCLIP fine-tuned on boxes of base words, from ``emoji_pretrain`` and ``emoji_localiser``.

``python -m ovseg.training.region_clip CHECKPOINT FILE`` turns the result into a file for ``ovseg.load``.
"""

from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules import DeltaXYWHBBoxCoder, MaxIoUAssigner, RandomSampler
from mmengine.config import read_base
from mmengine.optim import LinearLR
from mmengine.optim.scheduler import CosineAnnealingLR
from mmengine.runner import IterBasedTrainLoop
from torch.optim import AdamW

from ovseg.models.detectors import (
    CLIPViTBlocksHead,
    CosineBBoxHead,
    FrozenLocaliser,
    RegionCLIPDetector,
    RegionCLIPSetup,
    RegionRoIHead,
    TwoViewPreprocessor,
)
from ovseg.models.losses import RegionCrossEntropy
from ovseg.training.groups import PatternGroups
from ovseg.training.hooks import PlainCheckpoint, SeededSteps

with read_base():
    from .._base_.datasets.emoji_boxes import *  # noqa: F403
    from .._base_.models.region_clip_vit_tiny import *  # noqa: F403
    from .._base_.runtime.detection import *  # noqa: F403

model = dict(
    type=RegionCLIPDetector,
    data_preprocessor=dict(type=TwoViewPreprocessor, localiser=None),
    backbone=backbone,  # noqa: F405
    localiser=dict(
        type=FrozenLocaliser,
        backbone=None,
        neck=neck,  # noqa: F405
        rpn_head=rpn_head,  # noqa: F405
        before=500,
        threshold=0.7,
        after=30,
    ),
    roi_head=dict(
        type=RegionRoIHead,
        regressor=dict(channels=192),
        shared_head=dict(type=CLIPViTBlocksHead, tower=tower, first=first),  # noqa: F405
        bbox_roi_extractor=dict(
            type=SingleRoIExtractor,
            roi_layer=dict(type="RoIAlign", output_size=6, sampling_ratio=0),
            out_channels=192,
            featmap_strides=[8],
        ),
        bbox_head=dict(
            type=CosineBBoxHead,
            in_channels=192,
            num_classes=112,
            with_reg=False,
            bbox_coder=dict(type=DeltaXYWHBBoxCoder, target_stds=[0.1, 0.1, 0.2, 0.2]),
            loss_cls=dict(type=RegionCrossEntropy, gamma=0.5, background_weight=0.2),
        ),
    ),
    train_cfg=dict(
        rcnn=dict(
            assigner=dict(
                type=MaxIoUAssigner,
                pos_iou_thr=0.5,
                neg_iou_thr=0.5,
                min_pos_iou=0.5,
                match_low_quality=False,
            ),
            sampler=dict(type=RandomSampler, num=12, pos_fraction=0.5, add_gt_as_proposals=True),
            pos_weight=-1,
            debug=False,
        )
    ),
    test_cfg=dict(rcnn=dict(score_thr=0.001, nms=0.5, max_per_img=100, objectness="sigmoid")),
)
steps = 1500
train_cfg = dict(type=IterBasedTrainLoop, max_iters=steps)
val_dataloader = val_evaluator = test_dataloader = test_evaluator = None  # `ovseg eval --data emoji_boxes`
optim_wrapper = dict(
    constructor=PatternGroups,
    optimizer=dict(type=AdamW, lr=2e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=5.0),
    paramwise_cfg=dict(rules=[dict(pattern="regressor", lr=10.0)]),
)
param_scheduler = [
    dict(type=LinearLR, start_factor=0.05, by_epoch=False, begin=0, end=30),
    dict(type=CosineAnnealingLR, T_max=steps, eta_min=0, by_epoch=False),
]
custom_hooks = [
    dict(
        type=RegionCLIPSetup,
        tower=tower,  # noqa: F405
        words="emoji",
        checkpoint="work_dirs/region_clip/pretrain/iter_1500.pth",
        localiser="work_dirs/region_clip/localiser/iter_350.pth",
        templates=templates,  # noqa: F405
    ),
    dict(type=SeededSteps, seed=0),
    dict(type=PlainCheckpoint, trained_only=False),
]
default_hooks.pop("visualization")  # noqa: F405  # scenes are no files
default_hooks["checkpoint"].update(interval=50, max_keep_ckpts=1)  # noqa: F405
default_hooks["logger"].update(interval=50)  # noqa: F405
