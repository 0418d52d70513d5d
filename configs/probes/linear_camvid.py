"""Linear probe: one 1 x 1 convolution on the last block of the frozen embedded tower."""

from mmengine.config import read_base
from mmseg.models import EncoderDecoder, FCNHead, SegDataPreProcessor

from ovseg.models.backbones import CLIPViT

with read_base():
    from .._base_.datasets.camvid import *  # noqa: F403
    from .._base_.runtime.segmentation import *  # noqa: F403
    from .._base_.schedules.camvid_45min import *  # noqa: F403

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
    backbone=dict(type=CLIPViT, tower="vit_tiny.emoji", out_blocks=[-1], strides=None, frozen=True),
    decode_head=dict(
        type=FCNHead,
        in_channels=192,
        in_index=0,
        channels=192,
        num_convs=0,
        concat_input=False,
        dropout_ratio=0,
        num_classes=11,
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
custom_hooks[1].update(momentum=0.02)  # noqa: F405  # averages over 50 steps: the training is short
