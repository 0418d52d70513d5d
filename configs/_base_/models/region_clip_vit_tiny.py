"""RegionCLIP's detector on the embedded ViT: its first blocks are shared by an RPN and by the regions."""

from mmdet.models.dense_heads import RPNHead
from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder

from ovseg.models.detectors import ChannelNorm, CLIPViTC4

tower = "vit_tiny.emoji"
first = 3  # blocks of six that run on whole images, and stay fixed
templates = ["{}", "a {}", "a photo of a {}.", "a drawing of a {}."]  # these the tower was trained with
backbone = dict(type=CLIPViTC4, tower=tower, first=first)
neck = dict(type=ChannelNorm)
rpn_head = dict(
    type=RPNHead,
    in_channels=192,
    feat_channels=96,
    num_convs=2,
    anchor_generator=dict(
        type=AnchorGenerator,
        scales=[4, 6, 9, 14, 21],
        ratios=[0.6, 1.0, 1.67],
        strides=[8],
        scale_major=False,
    ),
    bbox_coder=dict(type=DeltaXYWHBBoxCoder),
)
