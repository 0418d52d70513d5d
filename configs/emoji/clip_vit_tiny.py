"""Tower ``vit_tiny``, tag ``emoji``: image-text pairs and region-text, for the demo and the tests.

The dense losses read the last block mostly as MaskCLIP does (value path, residual, MLP), since that is the
first method of the zoo, and for the rest as the bare value path, which the later methods build on.

Sizes: most steps see 64 pixels, where an image costs 8 ms on one core; the last third adds larger scenes and
keeps every patch, so that 224 pixels work. All of it, some 254 000 images, takes about an hour of one core.
To train on: set ``model.start`` to the exported tower, or raise ``steps`` and resume from before the decay.
"""

from mmengine.config import read_base

from ovseg.datasets.emoji.batches import EmojiBatches
from ovseg.training.clip_pretraining import CLIPPretrainer
from ovseg.training.loop import EmojiEvaluationHook, TowerCardHook
from ovseg.training.optim import MuonAdamWConstructor, StableDecayLR

with read_base():
    from .._base_.runtime.pretraining import *  # noqa: F403

steps = 5500
full = 3600  # from here on every patch and the larger sizes
groups = ["base", "novel"]

model = dict(
    type=CLIPPretrainer,
    model=dict(
        embed_dim=192,
        vision_cfg=dict(image_size=224, layers=6, width=192, head_width=64, patch_size=8),
        text_cfg=dict(context_length=32, vocab_size=49408, width=160, heads=4, layers=3),
    ),
    groups=groups,
    mean=[0.48145466, 0.4578275, 0.40821073],
    std=[0.26862954, 0.26130258, 0.27577711],
    weights=dict(caption=1.0, name=1.0, region=1.0, patch=0.5, maskclip=0.6),
    dropout=dict(keep=0.64, until=full),
)
train_dataloader = dict(
    batches=dict(
        type=EmojiBatches,
        stages=[
            (full, [(64, 64, 0.75), (96, 28, 0.17), (128, 16, 0.08)]),
            (steps, [(64, 64, 0.3), (96, 28, 0.25), (128, 16, 0.2), (224, 6, 0.25)]),
        ],
        groups=groups,
        seed=0,
    ),
    num_workers=1,
)
train_cfg = dict(by_epoch=False, max_iters=steps)
optim_wrapper = dict(
    constructor=MuonAdamWConstructor,
    optimizer=dict(lr=1.5e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [dict(type=StableDecayLR, warmup=150, decay_from=4000, end=steps)]
custom_hooks = [
    *custom_hooks,  # noqa: F405
    dict(type=EmojiEvaluationHook, interval=300, split="val", scenes=30),
    dict(type=TowerCardHook, name="vit_tiny.emoji", scenes=60),
]
