"""CAT-Seg on ViT-L/14 at 336 pixels, COCO-Stuff 164k, as published."""

from mmengine.config import read_base

with read_base():
    from .vit_b16_coco_stuff import *  # noqa: F403

model.update(tower="vit_l14_336.openai")  # noqa: F405
