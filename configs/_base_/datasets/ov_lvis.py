"""OV-LVIS: training on 866 frequent and common classes, evaluation on all 1203; rare ones are novel.

``tools/prepare/ov_lvis.py`` writes the annotations for training. Images lie in COCO's folders.
"""

from mmcv.transforms import LoadImageFromFile, RandomChoiceResize
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, RandomFlip, Resize
from mmengine.dataset import ClassBalancedDataset, DefaultSampler, InfiniteSampler

from ovseg.datasets.detection import OpenVocabularyLVIS
from ovseg.evaluation.lvis_metric import OpenVocabularyLVISMetric

data_root = "data/coco/"
meta_keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")

train_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=LoadAnnotations, with_bbox=True, with_mask=True),
    dict(type=RandomChoiceResize, scales=[(1333, s) for s in range(640, 801, 32)], keep_ratio=True,
         resize_type="mmdet.Resize"),
    dict(type=RandomFlip, prob=0.5),
    dict(type=PackDetInputs),
]  # fmt: skip
test_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=Resize, scale=(1333, 800), keep_ratio=True),
    dict(type=PackDetInputs, meta_keys=meta_keys),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type=InfiniteSampler),
    dataset=dict(
        type=ClassBalancedDataset,
        oversample_thr=1e-3,
        dataset=dict(
            type=OpenVocabularyLVIS,
            data_root=data_root,
            ann_file="annotations/lvis_v1_train_base.json",
            group="base",
            filter_cfg=dict(filter_empty_gt=True),
            pipeline=train_pipeline,
        ),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(
        type=OpenVocabularyLVIS,
        data_root=data_root,
        ann_file="annotations/lvis_v1_val.json",
        group="all",
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type=OpenVocabularyLVISMetric,
    ann_file=data_root + "annotations/lvis_v1_val.json",
    metric=["bbox", "segm"],
)
test_evaluator = val_evaluator
