"""Cityscapes, 19 classes."""

from mmcv.transforms import LoadImageFromFile, RandomFlip, RandomResize, Resize
from mmengine.dataset.sampler import DefaultSampler
from mmseg.datasets import CityscapesDataset
from mmseg.datasets.transforms import PackSegInputs, PhotoMetricDistortion, RandomCrop
from mmseg.evaluation import IoUMetric

from ovseg.datasets.segmentation import LoadLabels
from ovseg.training.samples import SampleNumbers, SeededSamples

data_root = "data/cityscapes"
train_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=LoadLabels, num_classes=19),
    dict(type=RandomResize, scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type=RandomCrop, crop_size=(512, 1024), cat_max_ratio=0.75),
    dict(type=RandomFlip, prob=0.5),
    dict(type=PhotoMetricDistortion),
    dict(type=PackSegInputs),
]
test_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=Resize, scale=(2048, 1024), keep_ratio=True),
    dict(type=LoadLabels, num_classes=19),  # not resized: results return to the original size
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
            type=CityscapesDataset,
            data_root=data_root,
            data_prefix=dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train"),
            pipeline=train_pipeline,
        ),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(
        type=CityscapesDataset,
        data_root=data_root,
        data_prefix=dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val"),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type=IoUMetric, iou_metrics=["mIoU"])
test_evaluator = val_evaluator
