"""RegionCLIP's pretraining on the embedded ViT: scenes with captions, boxes of the localiser.

Captions have base and novel words, as captions of the web do; no box and no class of a scene is used. First::

    python tools/prepare/concepts.py emoji work_dirs/region_clip/concepts.txt --least 3
    ovseg train configs/region_clip/emoji_localiser.py --work-dir work_dirs/region_clip/localiser
"""

from mmdet.datasets.transforms import PackDetInputs, RandomFlip
from mmengine.config import read_base
from mmengine.optim import LinearLR, OptimWrapper
from mmengine.optim.scheduler import CosineAnnealingLR
from mmengine.runner import IterBasedTrainLoop
from torch.optim import AdamW

from ovseg.models.detectors import FrozenLocaliser, RegionCLIPPretrainer, TwoViewPreprocessor
from ovseg.training.hooks import PlainCheckpoint, SeededSteps

with read_base():
    from .._base_.datasets.emoji_boxes import *  # noqa: F403
    from .._base_.models.region_clip_vit_tiny import *  # noqa: F403
    from .._base_.runtime.detection import *  # noqa: F403

model = dict(
    type=RegionCLIPPretrainer,
    tower=tower,  # noqa: F405
    concepts="work_dirs/region_clip/concepts.txt",
    localiser=dict(
        type=FrozenLocaliser,
        backbone=None,
        neck=neck,  # noqa: F405
        rpn_head=rpn_head,  # noqa: F405
        before=500,
        threshold=0.7,
        after=20,
    ),
    localiser_weights="work_dirs/region_clip/localiser/iter_350.pth",
    regions=8,
    templates=templates,  # noqa: F405
    data_preprocessor=dict(type=TwoViewPreprocessor, localiser=None),
    first=first,  # noqa: F405
)
train_dataloader["dataset"]["dataset"].update(  # noqa: F405
    groups=["base", "novel"],
    pipeline=[dict(type=RandomFlip, prob=0.5), dict(type=PackDetInputs, meta_keys=meta_keys)],  # noqa: F405
)
steps = 1500
train_cfg = dict(type=IterBasedTrainLoop, max_iters=steps)
val_dataloader = val_evaluator = test_dataloader = test_evaluator = None
optim_wrapper = dict(
    type=OptimWrapper, optimizer=dict(type=AdamW, lr=4e-4, weight_decay=0.05), clip_grad=dict(max_norm=5.0)
)
param_scheduler = [
    dict(type=LinearLR, start_factor=0.05, by_epoch=False, begin=0, end=30),
    dict(type=CosineAnnealingLR, T_max=steps, eta_min=0, by_epoch=False),
]
custom_hooks = [dict(type=SeededSteps, seed=0), dict(type=PlainCheckpoint, trained_only=False)]
default_hooks.pop("visualization")  # noqa: F405  # scenes are no files
default_hooks["checkpoint"].update(interval=50, max_keep_ckpts=1)  # noqa: F405
default_hooks["logger"].update(interval=50)  # noqa: F405
