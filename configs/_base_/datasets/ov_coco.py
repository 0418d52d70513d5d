"""OV-COCO: training on boxes of 48 base classes, evaluation on all 65 (generalised setting).

``tools/prepare/ov_coco.py`` writes the two annotation files.
"""

from mmcv.transforms import LoadImageFromFile, RandomChoiceResize
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, RandomFlip, Resize
from mmengine.dataset import DefaultSampler, InfiniteSampler

from ovseg.datasets.detection import OpenVocabularyCoco
from ovseg.evaluation.coco_metric import OpenVocabularyCocoMetric

data_root = "data/coco/"
meta_keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")

train_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=LoadAnnotations, with_bbox=True),
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
        type=OpenVocabularyCoco,
        data_root=data_root,
        ann_file="annotations/instances_train2017_base.json",
        data_prefix=dict(img="train2017/"),
        group="base",
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(
        type=OpenVocabularyCoco,
        data_root=data_root,
        ann_file="annotations/instances_val2017_all.json",
        data_prefix=dict(img="val2017/"),
        group="all",
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type=OpenVocabularyCocoMetric,
    ann_file=data_root + "annotations/instances_val2017_all.json",
    metric="bbox",
    proposal_nums=(1, 10, 100),  # COCO's own: AP counts 100 detections, where mmdet's default counts 1000
)
test_evaluator = val_evaluator
