"""Boxes in EmojiScenes: training on base words by training artists; validation asks for novel ones too."""

from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, RandomFlip
from mmdet.evaluation import OVCocoMetric
from mmengine.dataset import DefaultSampler

from ovseg.datasets.emoji_boxes import EmojiBoxesDataset
from ovseg.training.samples import SampleNumbers, SeededSamples

meta_keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "gt_caption")
load = dict(type=LoadAnnotations, with_bbox=True)  # scenes come decoded
train_pipeline = [load, dict(type=RandomFlip, prob=0.5), dict(type=PackDetInputs, meta_keys=meta_keys)]
test_pipeline = [load, dict(type=PackDetInputs, meta_keys=("img_id", "img_path", "ori_shape", "img_shape"))]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type=SampleNumbers),
    dataset=dict(
        type=SeededSamples,
        seed=0,
        dataset=dict(
            type=EmojiBoxesDataset, split="train", groups=["base"], length=20000, pipeline=train_pipeline
        ),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(
        type=EmojiBoxesDataset,
        split="val",
        groups=["base", "novel"],
        length=60,
        seed=7,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type=OVCocoMetric, metric="bbox", proposal_nums=(1, 10, 100))
test_evaluator = val_evaluator
