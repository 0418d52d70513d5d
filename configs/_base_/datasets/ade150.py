"""ADE20K, 150 classes."""

from mmcv.transforms import LoadImageFromFile, RandomFlip, RandomResize, Resize
from mmengine.dataset.sampler import DefaultSampler
from mmseg.datasets import ADE20KDataset
from mmseg.datasets.transforms import PackSegInputs, PhotoMetricDistortion, RandomCrop
from mmseg.evaluation import IoUMetric

from ovseg.datasets.segmentation import LoadLabels
from ovseg.training.samples import SampleNumbers, SeededSamples

data_root = "data/ade/ADEChallengeData2016"
train_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=LoadLabels, num_classes=150),
    dict(type=RandomResize, scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type=RandomCrop, crop_size=(512, 512), cat_max_ratio=0.75),
    dict(type=RandomFlip, prob=0.5),
    dict(type=PhotoMetricDistortion),
    dict(type=PackSegInputs),
]
test_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=Resize, scale=(2048, 512), keep_ratio=True),
    dict(type=LoadLabels, num_classes=150),  # not resized: results return to the original size
    dict(type=PackSegInputs),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type=SampleNumbers),
    dataset=dict(
        type=SeededSamples,
        seed=0,
        dataset=dict(
            type=ADE20KDataset,
            data_root=data_root,
            data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
            pipeline=train_pipeline,
        ),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(
        type=ADE20KDataset,
        data_root=data_root,
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type=IoUMetric, iou_metrics=["mIoU"])
test_evaluator = val_evaluator
