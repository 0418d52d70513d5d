"""The regressor of ``emoji_boxes`` alone, on proposals only: true boxes, which need no move, were a third.

It reads tokens that no training changes, so that it takes nothing from what the tuned blocks know.
"""

from mmengine.config import read_base

with read_base():
    from .emoji_boxes import *  # noqa: F403

steps = 600
load_from = "work_dirs/region_clip/boxes/iter_1500.pth"
model["train_cfg"]["rcnn"]["sampler"].update(num=16, pos_fraction=0.75, add_gt_as_proposals=False)  # noqa: F405
train_cfg.update(max_iters=steps)  # noqa: F405
optim_wrapper.update(  # noqa: F405
    optimizer=dict(type=AdamW, lr=1e-4, weight_decay=0.05),  # noqa: F405
    paramwise_cfg=dict(rules=[dict(pattern="regressor", lr=10.0), dict(pattern="shared_head", lr=0.0)]),
)
param_scheduler[0].update(end=20)  # noqa: F405
param_scheduler[1].update(T_max=steps)  # noqa: F405
