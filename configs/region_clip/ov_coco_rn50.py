"""RegionCLIP fine-tuned on OV-COCO's base classes: AP50 31.4 novel, 50.4 all (its README).

``checkpoint`` and ``localiser`` of the hook name files of its model zoo; without ``checkpoint`` the detector
starts from OpenAI's RN50.
"""

from mmengine.config import read_base
from mmengine.optim import LinearLR, MultiStepLR, OptimWrapper
from mmengine.runner import IterBasedTrainLoop, TestLoop, ValLoop
from torch.optim import SGD

from ovseg.models.detectors import RegionCLIPSetup

with read_base():
    from .._base_.datasets.ov_coco import *  # noqa: F403
    from .._base_.models.region_clip_rn50 import *  # noqa: F403
    from .._base_.runtime.detection import *  # noqa: F403

model["test_cfg"]["rcnn"].update(soft_sigma=0.5)  # noqa: F405
custom_hooks = [
    dict(
        type=RegionCLIPSetup,
        tower="rn50.openai",
        words="coco_ov65",
        checkpoint="pretrained_ckpt/regionclip/regionclip_pretrained-cc_rn50.pth",
        localiser="pretrained_ckpt/rpn/rpn_coco_48.pth",
    )
]
train_cfg = dict(type=IterBasedTrainLoop, max_iters=90000, val_interval=10000)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=SGD, lr=0.002, momentum=0.9, weight_decay=1e-4),  # 8 GPUs x 2
)
param_scheduler = [
    dict(type=LinearLR, start_factor=0.001, by_epoch=False, begin=0, end=5000),
    dict(type=MultiStepLR, by_epoch=False, milestones=[60000, 80000], gamma=0.1),
]
auto_scale_lr = dict(base_batch_size=16)
