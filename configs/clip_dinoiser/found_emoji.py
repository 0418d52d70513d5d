"""FOUND on the embedded self-supervised tower: the teacher that says where objects are, from images alone.

Published are batches of 50 images of 224 pixels, a rate of 5e-2, and 500 steps, of which 100 learn from the
coarse rule. Here are fewer images, so the rate is lower and the rule leads longer; and its seed is chosen
by the attention all around, as flat inner parts of drawings get none either.
"""

from mmengine.config import read_base
from mmengine.optim import OptimWrapper
from mmengine.optim.scheduler import StepLR
from mmengine.runner.loops import IterBasedTrainLoop
from torch.optim import AdamW

from ovseg.models.segmentors import FoundTrainer
from ovseg.training.hooks import PlainCheckpoint, SeededSteps

with read_base():
    from .._base_.datasets.emoji import *  # noqa: F403
    from .._base_.runtime.segmentation import *  # noqa: F403

model = dict(type=FoundTrainer, auxiliary="dino_vit_tiny.emoji", width=192, around=15, coarse_steps=50)
train_dataloader.update(batch_size=4)  # noqa: F405
train_cfg = dict(type=IterBasedTrainLoop, max_iters=60)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=AdamW, lr=1e-2))
param_scheduler = [dict(type=StepLR, step_size=50, gamma=0.95, by_epoch=False)]
val_dataloader = val_evaluator = test_dataloader = test_evaluator = None  # labels are never looked at
default_hooks["checkpoint"].update(interval=20, save_best=None)  # noqa: F405
default_hooks["visualization"].update(draw=False)  # noqa: F405
custom_hooks = [dict(type=SeededSteps, seed=0), dict(type=PlainCheckpoint)]
