"""RegionCLIP's detector: CLIP's RN50 as C4, and a localiser of its own (ImageNet R50-C4 with an RPN)."""

from mmdet.models.backbones import ResNet
from mmdet.models.dense_heads import RPNHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder, MaxIoUAssigner, RandomSampler

from ovseg.models.detectors import (
    CLIPPoolHead,
    CLIPResNetC4,
    CosineBBoxHead,
    FrozenLocaliser,
    RegionCLIPDetector,
    RegionRoIHead,
    TwoViewPreprocessor,
)
from ovseg.models.losses import RegionCrossEntropy

localiser = dict(
    type=FrozenLocaliser,
    backbone=dict(
        type=ResNet, depth=50, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,),
        style="caffe", norm_eval=True,
    ),
    rpn_head=dict(
        type=RPNHead,
        in_channels=1024,
        feat_channels=1024,
        anchor_generator=dict(
            type=AnchorGenerator,
            scales=[2, 4, 8, 16, 32],
            ratios=[0.5, 1.0, 2.0],
            strides=[16],
            scale_major=False,
        ),
        bbox_coder=dict(type=DeltaXYWHBBoxCoder),
    ),
    before=6000,
    threshold=0.9,
    after=1000,
)  # fmt: skip
model = dict(
    type=RegionCLIPDetector,
    data_preprocessor=dict(type=TwoViewPreprocessor),
    backbone=dict(type=CLIPResNetC4, arch="RN50"),
    localiser=localiser,
    roi_head=dict(
        type=RegionRoIHead,
        shared_head=dict(type=CLIPPoolHead, arch="RN50"),
        bbox_roi_extractor=dict(
            type=SingleRoIExtractor,
            roi_layer=dict(type="RoIAlign", output_size=14, sampling_ratio=0),
            out_channels=1024,
            featmap_strides=[16],
        ),
        bbox_head=dict(
            type=CosineBBoxHead,
            in_channels=1024,
            num_classes=48,
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
            sampler=dict(type=RandomSampler, num=512, pos_fraction=0.25, add_gt_as_proposals=True),
            pos_weight=-1,
            debug=False,
        )
    ),
    test_cfg=dict(rcnn=dict(score_thr=0.001, nms=0.5, max_per_img=100)),
)
