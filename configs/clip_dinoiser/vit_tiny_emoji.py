"""CLIP-DINOiser on the embedded tower: 200 EmojiScenes of base words by training artists, without labels.

``found_emoji.py`` makes its second teacher.
"""

from mmengine.config import read_base
from mmengine.optim.scheduler import MultiStepLR
from mmengine.runner.loops import IterBasedTrainLoop, TestLoop, ValLoop
from torch.optim import AdamW

from ovseg.datasets.emoji_scenes import BASE_CLASSES
from ovseg.methods.clip_dinoiser import EMOJI_HEAD
from ovseg.models.segmentors import CLIPDINOiserGroups, CLIPDINOiserSegmentor
from ovseg.training.hooks import PlainCheckpoint, SeededSteps

with read_base():
    from .._base_.datasets.emoji import *  # noqa: F403
    from .._base_.runtime.segmentation import *  # noqa: F403

model = dict(
    type=CLIPDINOiserSegmentor,
    tower="vit_tiny.emoji",
    classes=BASE_CLASSES,
    auxiliary="dino_vit_tiny.emoji",
    saliency="work_dirs/found_emoji/iter_60.pth",
    gamma=0.7,  # so small a DINO finds everything a little alike
    targets=None,
    fields=EMOJI_HEAD,
)
train_dataloader.update(batch_size=4)  # noqa: F405
train_dataloader["dataset"]["dataset"].update(length=200, pipeline=test_pipeline)  # noqa: F405
train_cfg = dict(type=IterBasedTrainLoop, max_iters=120, val_interval=120)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
optim_wrapper = dict(
    constructor=CLIPDINOiserGroups,
    optimizer=dict(type=AdamW, lr=2e-3, weight_decay=0.01),
    paramwise_cfg=dict(background_lr=1e-2),
)
param_scheduler = [dict(type=MultiStepLR, milestones=[90], gamma=0.1, by_epoch=False)]
default_hooks["visualization"].update(draw=False)  # noqa: F405  # scenes are no files
custom_hooks = [dict(type=SeededSteps, seed=0), dict(type=PlainCheckpoint)]
