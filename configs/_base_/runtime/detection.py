"""Hooks of a detector's run."""

from mmdet.engine.hooks import DetVisualizationHook
from mmdet.visualization import DetLocalVisualizer
from mmengine.hooks import (
    CheckpointHook,
    DistSamplerSeedHook,
    IterTimerHook,
    LoggerHook,
    ParamSchedulerHook,
    RuntimeInfoHook,
)
from mmengine.visualization import LocalVisBackend

default_scope = "mmdet"
randomness = dict(seed=0)
default_hooks = dict(
    runtime_info=dict(type=RuntimeInfoHook),
    timer=dict(type=IterTimerHook),
    sampler_seed=dict(type=DistSamplerSeedHook),
    logger=dict(type=LoggerHook, interval=50),
    param_scheduler=dict(type=ParamSchedulerHook),
    checkpoint=dict(type=CheckpointHook, by_epoch=False, interval=5000, max_keep_ckpts=3),
    visualization=dict(type=DetVisualizationHook),
)
visualizer = dict(type=DetLocalVisualizer, vis_backends=[dict(type=LocalVisBackend)])
log_processor = dict(by_epoch=False)
