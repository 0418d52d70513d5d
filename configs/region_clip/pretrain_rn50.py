"""RegionCLIP's pretraining from OpenAI's RN50 on images with captions (the authors took CC3M).

``concepts`` is a file of nouns, one a line, e.g. parsed from the captions.
"""

from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoCaptionDataset
from mmdet.datasets.transforms import PackDetInputs, RandomFlip, Resize
from mmengine.config import read_base
from mmengine.dataset import InfiniteSampler
from mmengine.optim import MultiStepLR, OptimWrapper
from mmengine.runner import IterBasedTrainLoop
from torch.optim import SGD

from ovseg.models.detectors import RegionCLIPPretrainer, TwoViewPreprocessor

with read_base():
    from .._base_.models.region_clip_rn50 import localiser
    from .._base_.runtime.detection import *  # noqa: F403

localiser.update(after=300)
model = dict(
    type=RegionCLIPPretrainer,
    tower="rn50.openai",
    concepts="data/concepts.txt",
    localiser=localiser,
    localiser_weights="pretrained_ckpt/rpn/rpn_coco_48.pth",
    data_preprocessor=dict(type=TwoViewPreprocessor),
)
train_dataloader = dict(
    batch_size=12,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type=InfiniteSampler),
    dataset=dict(
        type=CocoCaptionDataset,
        ann_file="data/captions.json",
        data_prefix=dict(img_path="data/"),
        pipeline=[
            dict(type=LoadImageFromFile),
            dict(type=Resize, scale=(1333, 800), keep_ratio=True),
            dict(type=RandomFlip, prob=0.5),
            dict(
                type=PackDetInputs,
                meta_keys=("img_path", "ori_shape", "img_shape", "scale_factor", "gt_caption"),
            ),
        ],
    ),
)
train_cfg = dict(type=IterBasedTrainLoop, max_iters=600000)
optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=SGD, lr=0.002, momentum=0.9, weight_decay=1e-4),  # 8 GPUs x 12
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [dict(type=MultiStepLR, by_epoch=False, milestones=[300000, 525000], gamma=0.1)]
auto_scale_lr = dict(base_batch_size=96)
default_hooks.pop("visualization")  # noqa: F405  # there are no boxes to draw
