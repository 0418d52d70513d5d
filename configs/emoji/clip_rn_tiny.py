"""Tower ``rn_tiny``, tag ``emoji``: a small CLIP ResNet, for the methods that read CLIP ResNets.

The dense losses go through the value and output projections of the attention pool, which is what MaskCLIP
reads. Its grid has a step of 32 pixels, so that images are twice as large as for ``vit_tiny``; an image of
128 pixels costs 9 ms on one core, in bfloat16 with channels last (convolutions in float32 take 2.5 times as
long). All of it, some 75 000 images, takes about 20 minutes of one core.
"""

from mmengine.config import read_base

with read_base():
    from .clip_vit_tiny import *  # noqa: F403

steps = 1200
late = 800  # from here on larger scenes

model.update(  # noqa: F405
    model=dict(
        embed_dim=192,
        vision_cfg=dict(image_size=224, layers=[1, 1, 2, 2], width=24, head_width=64),
        text_cfg=dict(context_length=32, vocab_size=49408, width=160, heads=4, layers=3),
    )
)
model.pop("dropout")  # noqa: F405
train_dataloader["batches"]["stages"] = [  # noqa: F405
    (late, [(96, 96, 0.3), (128, 64, 0.6), (192, 28, 0.1)]),
    (steps, [(96, 96, 0.1), (128, 64, 0.5), (192, 28, 0.25), (256, 16, 0.15)]),
]
train_cfg.update(max_iters=steps)  # noqa: F405
optim_wrapper["optimizer"].update(lr=2e-3)  # noqa: F405
param_scheduler[0].update(decay_from=late, end=steps)  # noqa: F405
custom_hooks[1].update(update_buffers=True)  # noqa: F405
custom_hooks[2].update(single_size=128, interval=200)  # noqa: F405
custom_hooks[3].update(name="rn_tiny.emoji", single_size=128)  # noqa: F405
