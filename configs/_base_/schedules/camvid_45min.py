"""``poly_2k`` in 2200 steps: with 8 crops of 256 pixels and ``--amp`` some 45 minutes of two CPU cores that
compute in bfloat16, for FCN on a ResNet-18.
"""

from mmengine.config import read_base

with read_base():
    from .poly_2k import *  # noqa: F403

train_cfg.update(max_iters=2200, val_interval=550)  # noqa: F405
param_scheduler[1].update(end=2200)  # noqa: F405
