"""EmojiScenes: heads train on base words by training artists, and are tested on the held-out artist's.

Textures are classes too: 112 words and 13 textures.
"""

from mmcv.transforms import RandomFlip
from mmengine.dataset.sampler import DefaultSampler
from mmseg.datasets.transforms import PackSegInputs
from mmseg.evaluation import IoUMetric

from ovseg.datasets.emoji_scenes import EmojiScenesDataset
from ovseg.training.samples import SampleNumbers, SeededSamples

train_pipeline = [dict(type=RandomFlip, prob=0.5), dict(type=PackSegInputs)]  # scenes come decoded
test_pipeline = [dict(type=PackSegInputs)]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type=SampleNumbers),
    dataset=dict(
        type=SeededSamples,
        seed=0,
        dataset=dict(
            type=EmojiScenesDataset, split="train", groups=["base"], length=20000, pipeline=train_pipeline
        ),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(
        type=EmojiScenesDataset, split="val", groups=["base"], length=60, seed=7, pipeline=test_pipeline
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(
        type=EmojiScenesDataset, split="test", groups=["base"], length=100, seed=7, pipeline=test_pipeline
    ),
)
val_evaluator = dict(type=IoUMetric, iou_metrics=["mIoU"])
test_evaluator = val_evaluator
