"""``poly_2k`` in 1400 steps: with 8 crops of 256 pixels some 45 minutes of two CPU cores, for Semantic FPN on
the embedded tower as for FCN on a ResNet-18.
"""

from mmengine.config import read_base

with read_base():
    from .poly_2k import *  # noqa: F403

train_cfg.update(max_iters=1400, val_interval=350)  # noqa: F405
param_scheduler[1].update(end=1400)  # noqa: F405
