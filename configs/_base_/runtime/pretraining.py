"""Logs, checkpoints and averaged weights of a tower's training from scratch."""

from mmengine.hooks import (
    CheckpointHook,
    DistSamplerSeedHook,
    EMAHook,
    IterTimerHook,
    LoggerHook,
    ParamSchedulerHook,
    RuntimeInfoHook,
)

from ovseg.training.loop import PretrainHook

default_scope = "mmengine"
randomness = dict(seed=0)
default_hooks = dict(
    timer=dict(type=IterTimerHook),
    logger=dict(type=LoggerHook, interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type=ParamSchedulerHook),
    checkpoint=dict(type=CheckpointHook, by_epoch=False, interval=150, max_keep_ckpts=3),
    sampler_seed=dict(type=DistSamplerSeedHook),
    runtime_info=dict(type=RuntimeInfoHook),
)
custom_hooks = [
    dict(type=PretrainHook),
    dict(type=EMAHook, momentum=0.005, update_buffers=False),
]
log_processor = dict(by_epoch=False, window_size=50)
