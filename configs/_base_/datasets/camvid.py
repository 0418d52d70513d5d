"""CamVid: photographs of 480 x 360 pixels from a car, 11 classes."""

from mmcv.transforms import LoadImageFromFile, RandomFlip, RandomResize
from mmengine.dataset.sampler import DefaultSampler
from mmseg.datasets.transforms import PackSegInputs, PhotoMetricDistortion, RandomCrop
from mmseg.evaluation import IoUMetric

from ovseg.datasets.segmentation import CamVidDataset, LoadLabels
from ovseg.training.samples import SampleNumbers, SeededSamples

data_root = "data/camvid"
train_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=LoadLabels, num_classes=11),
    dict(type=RandomResize, scale=(480, 360), ratio_range=(0.75, 1.75), keep_ratio=True),
    dict(type=RandomCrop, crop_size=(256, 256), cat_max_ratio=0.75),
    dict(type=RandomFlip, prob=0.5),
    dict(type=PhotoMetricDistortion),
    dict(type=PackSegInputs),
]
test_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=LoadLabels, num_classes=11),
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
            type=CamVidDataset,
            data_root=data_root,
            data_prefix=dict(img_path="images/train", seg_map_path="annotations/train"),
            pipeline=train_pipeline,
        ),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(
        type=CamVidDataset,
        data_root=data_root,
        data_prefix=dict(img_path="images/val", seg_map_path="annotations/val"),
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(
        type=CamVidDataset,
        data_root=data_root,
        data_prefix=dict(img_path="images/test", seg_map_path="annotations/test"),
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type=IoUMetric, iou_metrics=["mIoU"])
test_evaluator = val_evaluator
