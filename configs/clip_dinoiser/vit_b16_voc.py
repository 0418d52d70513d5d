"""CLIP-DINOiser on ViT-B/16 as published, but for the images: 1000 of Pascal VOC's in place of ImageNet's.

100 rounds in batches of 16 crops of 448 pixels. No label is read but for the validation. With
``model.targets`` set to a folder the teachers' answers are kept there (some 10 kB a crop).
"""

from mmcv.transforms import LoadImageFromFile, RandomFlip, Resize
from mmengine.config import read_base
from mmengine.optim.scheduler import MultiStepLR
from mmengine.runner.loops import IterBasedTrainLoop, TestLoop, ValLoop
from mmseg.datasets.transforms import PackSegInputs, RandomCrop
from torch.optim import AdamW

from ovseg.models.segmentors import CLIPDINOiserGroups, CLIPDINOiserSegmentor
from ovseg.training.hooks import PlainCheckpoint, SeededSteps
from ovseg.training.transforms import RandomBrightness

with read_base():
    from .._base_.datasets.voc21 import *  # noqa: F403
    from .._base_.runtime.segmentation import *  # noqa: F403

model = dict(
    type=CLIPDINOiserSegmentor,
    tower="vit_b16.laion2b",
    classes="voc21.clip_dinoiser",
    auxiliary="dino_vit_b16",
    saliency="found",
    targets=None,
    fields=dict(uncertain_background=0),
)
train_dataloader.update(batch_size=16)  # noqa: F405
train_dataloader["dataset"]["dataset"].update(  # noqa: F405
    indices=1000,
    pipeline=[
        dict(type=LoadImageFromFile),
        dict(type=Resize, scale=(2048, 448), keep_ratio=True),
        dict(type=RandomCrop, crop_size=(448, 448)),
        dict(type=RandomFlip, prob=0.5),
        dict(type=RandomBrightness, amount=0.5),
        dict(type=PackSegInputs),
    ],
)
train_cfg = dict(type=IterBasedTrainLoop, max_iters=6300, val_interval=2100)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
optim_wrapper = dict(
    constructor=CLIPDINOiserGroups,
    optimizer=dict(type=AdamW, lr=5e-5, weight_decay=0.01),
    paramwise_cfg=dict(background_lr=1e-2),
)
param_scheduler = [dict(type=MultiStepLR, milestones=[5000], gamma=0.1, by_epoch=False)]
default_hooks["checkpoint"].update(interval=500)  # noqa: F405
custom_hooks = [dict(type=SeededSteps, seed=0), dict(type=PlainCheckpoint)]
