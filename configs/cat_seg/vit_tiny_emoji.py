"""CAT-Seg on the embedded tower and EmojiScenes: trained on base words, used with any."""

from mmengine.config import read_base
from mmengine.optim.scheduler import CosineAnnealingLR
from mmengine.runner.loops import IterBasedTrainLoop, TestLoop, ValLoop
from torch.optim import AdamW

from ovseg.datasets.emoji_scenes import BASE_CLASSES
from ovseg.methods.cat_seg import EMOJI_HEAD
from ovseg.models.segmentors import CATSegGroups, CATSegSegmentor
from ovseg.training.hooks import PlainCheckpoint, SeededSteps

with read_base():
    from .._base_.datasets.emoji import *  # noqa: F403
    from .._base_.runtime.segmentation import *  # noqa: F403

model = dict(
    type=CATSegSegmentor,
    tower="vit_tiny.emoji",
    classes=BASE_CLASSES,
    classes_per_step=24,
    fields=dict(grid=28, canvas=None, aggregator=EMOJI_HEAD),
)
train_dataloader.update(batch_size=4)  # noqa: F405
train_cfg = dict(type=IterBasedTrainLoop, max_iters=1500, val_interval=500)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
optim_wrapper = dict(
    constructor=CATSegGroups,
    optimizer=dict(type=AdamW, lr=1e-3, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1),
    paramwise_cfg=dict(clip_factor=0.02),
)
param_scheduler = [dict(type=CosineAnnealingLR, T_max=1500, eta_min=0, by_epoch=False)]
default_hooks["visualization"].update(draw=False)  # noqa: F405  # scenes are no files
custom_hooks = [  # no averaged weights; checkpoints hold the whole model
    dict(type=SeededSteps, seed=0),
    dict(type=PlainCheckpoint, trained_only=False),
]
