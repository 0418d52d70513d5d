"""Auxiliary tower ``dino_vit_tiny.emoji``: self-supervised, for the methods that need a DINO.

Nothing but the images of the training artists is read: no word, no caption, no mask.
"""

from mmengine.config import read_base

from ovseg.datasets.emoji.batches import EmojiBatches
from ovseg.training.dino_hooks import DINOHook
from ovseg.training.dino_pretraining import DINOPretrainer
from ovseg.training.optim import MuonAdamWConstructor, StableDecayLR

with read_base():
    from .._base_.runtime.pretraining import *  # noqa: F403

steps = 2200

model = dict(type=DINOPretrainer, tower="dino_vit_tiny.emoji", steps=steps)
train_dataloader = dict(
    batches=dict(
        type=EmojiBatches,
        stages=[(steps, [(96, 32, 0.8), (144, 14, 0.2)])],
        groups=["base", "novel"],
        seed=1,
        single=0.4,
    ),
    num_workers=1,
)
train_cfg = dict(by_epoch=False, max_iters=steps)
optim_wrapper = dict(
    constructor=MuonAdamWConstructor,
    optimizer=dict(lr=1.5e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=3.0),
)
param_scheduler = [dict(type=StableDecayLR, warmup=100, decay_from=1500, end=steps)]
custom_hooks = [dict(type=DINOHook, interval=200)]
