"""Logs, checkpoints and seeds of a segmentor's training: it may be killed at any step and goes on to the same
weights (with ``num_workers=0`` and a fixed number of threads).
"""

from mmengine.hooks import (
    CheckpointHook,
    DistSamplerSeedHook,
    EMAHook,
    IterTimerHook,
    LoggerHook,
    ParamSchedulerHook,
    RuntimeInfoHook,
)
from mmengine.visualization import LocalVisBackend
from mmseg.engine.hooks import SegVisualizationHook
from mmseg.visualization import SegLocalVisualizer

from ovseg.training.hooks import PlainCheckpoint, SeededSteps

default_scope = "mmseg"
custom_imports = dict(imports=["ovseg.models"])
randomness = dict(seed=0)
default_hooks = dict(
    timer=dict(type=IterTimerHook),
    logger=dict(type=LoggerHook, interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type=ParamSchedulerHook),
    checkpoint=dict(
        type=CheckpointHook, by_epoch=False, interval=200, max_keep_ckpts=2, save_best="mIoU", rule="greater"
    ),
    sampler_seed=dict(type=DistSamplerSeedHook),
    runtime_info=dict(type=RuntimeInfoHook),
    visualization=dict(type=SegVisualizationHook, draw=True, interval=25),
)
custom_hooks = [
    dict(type=SeededSteps, seed=0),
    dict(type=EMAHook, momentum=0.005, update_buffers=False),
    dict(type=PlainCheckpoint),
]
visualizer = dict(type=SegLocalVisualizer, vis_backends=[dict(type=LocalVisBackend)])
log_processor = dict(by_epoch=False, window_size=50)
