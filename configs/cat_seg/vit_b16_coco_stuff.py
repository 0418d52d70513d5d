"""CAT-Seg on ViT-B/16, COCO-Stuff 164k, as published: batches of 4 crops of 384 pixels (on as many GPUs as
there are, batch_size x GPUs = 4), queries and values of both towers tuned along.
"""

from mmcv.transforms import LoadImageFromFile, RandomFlip, RandomResize
from mmengine.config import read_base
from mmseg.datasets.transforms import PackSegInputs, PhotoMetricDistortion, RandomCrop

from ovseg.datasets.segmentation import LoadLabels
from ovseg.models.segmentors import CATSegSegmentor
from ovseg.training.hooks import PlainCheckpoint, SeededSteps

with read_base():
    from .._base_.datasets.coco_stuff171 import *  # noqa: F403
    from .._base_.runtime.segmentation import *  # noqa: F403
    from .._base_.schedules.cat_seg_80k import *  # noqa: F403

model = dict(
    type=CATSegSegmentor,
    tower="vit_b16.openai",
    classes="coco_stuff171.cat_seg",
    fine_tune="attention",
    fields=dict(ignored="negative"),  # as the authors train
)
train_dataloader.update(batch_size=4)  # noqa: F405
train_dataloader["dataset"]["dataset"].update(  # noqa: F405
    pipeline=[
        dict(type=LoadImageFromFile),
        dict(type=LoadLabels, num_classes=171),
        dict(type=RandomResize, scale=(2560, 384), ratio_range=(1.0, 1.0), keep_ratio=True),
        dict(type=RandomCrop, crop_size=(384, 384)),
        dict(type=PhotoMetricDistortion),
        dict(type=RandomFlip, prob=0.5),
        dict(type=PackSegInputs),
    ]
)
default_hooks["checkpoint"].update(interval=5000)  # noqa: F405
custom_hooks = [  # no averaged weights; checkpoints hold the whole model
    dict(type=SeededSteps, seed=0),
    dict(type=PlainCheckpoint, trained_only=False),
]
