"""CAT-Seg on the embedded tower and EmojiScenes: the head learns from base words, and is used with any.

Windows of 112 pixels of scenes of about 224. The towers stay as they are: what they would learn here is the
hand of the training artists. The head would, too: ``fading`` keeps it from relying on how sure they make the
towers.
"""

from mmcv.transforms import RandomFlip, RandomResize
from mmengine.config import read_base
from mmengine.optim.scheduler import CosineAnnealingLR
from mmengine.runner.loops import IterBasedTrainLoop
from mmseg.datasets.transforms import PackSegInputs, PhotoMetricDistortion, RandomCrop
from torch.optim import AdamW

from ovseg.datasets.emoji_scenes import BASE_CLASSES
from ovseg.models.segmentors import CATSegGroups, CATSegSegmentor
from ovseg.training.hooks import PlainCheckpoint, SeededSteps

with read_base():
    from .._base_.datasets.emoji import *  # noqa: F403
    from .._base_.runtime.segmentation import *  # noqa: F403

model = dict(
    type=CATSegSegmentor,
    tower="vit_tiny.emoji",
    classes=BASE_CLASSES,
    protocol="emoji",
    fine_tune="none",
    classes_per_step=(1, 16),
    fields=dict(fading=0.5, balanced=True),
)
train_dataloader.update(batch_size=3)  # noqa: F405
train_dataloader["dataset"]["dataset"].update(  # noqa: F405
    pipeline=[
        dict(type=RandomResize, scale=(224, 224), ratio_range=(0.75, 1.25), keep_ratio=True),
        dict(type=RandomCrop, crop_size=(112, 112)),
        dict(type=PhotoMetricDistortion),
        dict(type=RandomFlip, prob=0.5),
        dict(type=PackSegInputs),
    ]
)
val_dataloader = None  # it is chosen by ``ovseg eval``, which sees scenes as windows
test_dataloader = None
val_evaluator = None
test_evaluator = None
train_cfg = dict(type=IterBasedTrainLoop, max_iters=120, val_interval=1000)
optim_wrapper = dict(
    constructor=CATSegGroups,
    optimizer=dict(type=AdamW, lr=2e-3, weight_decay=1e-2),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [dict(type=CosineAnnealingLR, T_max=120, eta_min=0, by_epoch=False)]
default_hooks["checkpoint"].update(save_best=None, interval=40)  # noqa: F405
default_hooks["visualization"].update(draw=False)  # noqa: F405  # scenes are no files
default_hooks["logger"].update(interval=10)  # noqa: F405
custom_hooks = [dict(type=SeededSteps, seed=0), dict(type=PlainCheckpoint)]  # short: nothing to average
