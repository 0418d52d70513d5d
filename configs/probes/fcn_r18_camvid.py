"""The baseline that probes are compared with: FCN on a ResNet-18 from scratch, both mmseg's own."""

from mmengine.config import read_base
from mmseg.models import EncoderDecoder, FCNHead, ResNetV1c, SegDataPreProcessor

with read_base():
    from .._base_.datasets.camvid import *  # noqa: F403
    from .._base_.runtime.segmentation import *  # noqa: F403
    from .._base_.schedules.camvid_45min import *  # noqa: F403

norm_cfg = dict(type="BN", requires_grad=True)
model = dict(
    type=EncoderDecoder,
    data_preprocessor=dict(
        type=SegDataPreProcessor,
        mean=[122.7709, 116.7460, 104.0937],
        std=[68.5005, 66.6322, 70.3232],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(256, 256),
        test_cfg=dict(size_divisor=32),
    ),
    backbone=dict(
        type=ResNetV1c,
        depth=18,
        num_stages=4,
        out_indices=[0, 1, 2, 3],
        dilations=[1, 1, 2, 4],
        strides=[1, 2, 1, 1],
        norm_cfg=norm_cfg,
        contract_dilation=True,
    ),
    decode_head=dict(
        type=FCNHead,
        in_channels=512,
        in_index=3,
        channels=128,
        num_convs=2,
        concat_input=True,
        dropout_ratio=0.1,
        num_classes=11,
        norm_cfg=norm_cfg,
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
custom_hooks[1].update(momentum=0.02)  # noqa: F405  # averages over 50 steps: the training is short
