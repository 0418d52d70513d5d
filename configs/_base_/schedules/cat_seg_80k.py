"""CAT-Seg's schedule: 80,000 steps of AdamW, cosine without warm-up, gradients clipped to a norm of 0.01."""

from mmengine.optim.scheduler import CosineAnnealingLR
from mmengine.runner.loops import IterBasedTrainLoop, TestLoop, ValLoop
from torch.optim import AdamW

from ovseg.models.segmentors import CATSegGroups

train_cfg = dict(type=IterBasedTrainLoop, max_iters=80000, val_interval=5000)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
optim_wrapper = dict(
    constructor=CATSegGroups,
    optimizer=dict(type=AdamW, lr=2e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.01),
    paramwise_cfg=dict(clip_factor=0.01),
)
param_scheduler = [dict(type=CosineAnnealingLR, T_max=80000, eta_min=0, by_epoch=False)]
