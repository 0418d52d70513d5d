"""Tower ``vit_tiny``, tag ``emoji_pairs``: image-text pairs alone, so that what its dense features can do
emerges as in CLIP. No mask is used, neither in a loss nor in the choice of the patches that are dropped.

Without the dense losses a step is cheaper and teaches less, so there are more of them.
"""

from mmengine.config import read_base

with read_base():
    from .clip_vit_tiny import *  # noqa: F403

steps = 6500
full = 5000  # from here on every patch and the larger sizes

model.update(  # noqa: F405
    weights=dict(caption=1.0, name=1.0, region=0.0, patch=0.0), dropout=dict(keep=0.64, until=full)
)
train_dataloader["batches"]["stages"] = [  # noqa: F405
    (full, [(64, 64, 0.75), (96, 28, 0.17), (128, 16, 0.08)]),
    (steps, [(64, 64, 0.3), (96, 28, 0.25), (128, 16, 0.2), (224, 6, 0.25)]),
]
train_cfg.update(max_iters=steps)  # noqa: F405
param_scheduler[0].update(decay_from=5500, end=steps)  # noqa: F405
custom_hooks[3].update(name="vit_tiny.emoji_pairs")  # noqa: F405
