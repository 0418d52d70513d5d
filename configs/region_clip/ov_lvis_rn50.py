"""RegionCLIP fine-tuned on OV-LVIS's base classes, with masks: APr 17.1 (the paper; 22.0 for RN50x4).

``checkpoint`` and ``localiser`` of the hook name files of its model zoo.
"""

from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmengine.config import read_base
from mmengine.optim import LinearLR, MultiStepLR

from ovseg.models.losses import RegionCrossEntropy

with read_base():
    from .._base_.datasets.ov_lvis import *  # noqa: F403
    from .ov_coco_rn50_zero_shot_rpn import (  # noqa: F401
        auto_scale_lr,
        custom_hooks,
        default_hooks,
        default_scope,
        log_processor,
        model,
        optim_wrapper,
        randomness,
        test_cfg,
        train_cfg,
        val_cfg,
        visualizer,
    )

# Trained with large-scale jitter: batch norms in its pyramid, two convolutions in its RPN.
model["localiser"]["neck"].update(norm_cfg=dict(type="BN"))
model["localiser"]["rpn_head"].update(num_convs=2)
model["roi_head"]["bbox_head"].update(
    num_classes=866,
    with_reg=True,
    loss_cls=dict(type=RegionCrossEntropy, gamma=None, background_weight=0.8),
)
model["roi_head"].update(
    mask_roi_extractor=model["roi_head"]["bbox_roi_extractor"],
    mask_head=dict(
        type=FCNMaskHead,
        num_convs=0,
        in_channels=2048,
        conv_out_channels=256,
        num_classes=866,
        class_agnostic=True,
    ),
)
model["train_cfg"]["rcnn"].update(mask_size=14)
model["test_cfg"]["rcnn"].update(score_thr=0.02, max_per_img=300, soft_sigma=0.5, mask_thr_binary=0.5)
custom_hooks[0].update(words="lvis_v1.regionclip", localiser="pretrained_ckpt/rpn/rpn_lvis_866_lsj.pth")
train_cfg.update(max_iters=180000, val_interval=25000)
param_scheduler = [
    dict(type=LinearLR, start_factor=0.001, by_epoch=False, begin=0, end=5000),
    dict(type=MultiStepLR, by_epoch=False, milestones=[120000, 160000], gamma=0.1),
]
