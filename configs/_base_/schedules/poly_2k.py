"""2000 steps of AdamW with warm-up and polynomial decay, validated every 400."""

from mmengine.optim.scheduler import LinearLR, PolyLR
from mmengine.runner.loops import IterBasedTrainLoop, TestLoop, ValLoop
from torch.optim import AdamW

from ovseg.training.groups import PatternGroups

train_cfg = dict(type=IterBasedTrainLoop, max_iters=2000, val_interval=400)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
optim_wrapper = dict(
    constructor=PatternGroups,
    optimizer=dict(type=AdamW, lr=1e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type=LinearLR, start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type=PolyLR, power=0.9, eta_min=1e-6, by_epoch=False, begin=100, end=2000),
]
