"""Tower ``vit_tiny``, tag ``emoji_pairs``: image-text pairs alone, so that what its dense features can do
emerges as in CLIP. No mask is used, neither in a loss nor in the choice of the patches that are dropped.
"""

from mmengine.config import read_base

with read_base():
    from .clip_vit_tiny import *  # noqa: F403

model.update(weights=dict(caption=1.0, name=1.0, region=0.0, patch=0.0))  # noqa: F405
