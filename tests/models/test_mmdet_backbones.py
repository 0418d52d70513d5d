"""CLIP towers as backbones of mmdet's detectors: one step of its own training, one prediction."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("mmdet")

from emoji_fakes import fake_drawings
from mmengine.config import Config

import ovseg.models  # noqa: F401
from ovseg.datasets.emoji import EmojiScenes
from ovseg.datasets.emoji_scenes import write_scenes

TEXT = {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
VIT = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 4, "width": 48, "head_width": 24, "patch_size": 16},
    "text_cfg": TEXT,
}
RESNET = {
    "embed_dim": 32,
    "vision_cfg": {
        "image_size": 64,
        "layers": [1, 1, 1, 1],
        "width": 8,
        "head_width": 16,
        "patch_size": None,
    },
    "text_cfg": TEXT,
}
BACKBONES = {
    "vit": (dict(type="ovseg.CLIPViT", tower=VIT, out_blocks=(0, 1, 2, 3)), [48] * 4),
    "resnet": (dict(type="ovseg.CLIPResNet", tower=RESNET), [32, 64, 128, 256]),
}
PREPROCESSOR = dict(
    type="DetDataPreprocessor", mean=[120.0] * 3, std=[60.0] * 3, bgr_to_rgb=True, pad_mask=True,
    pad_size_divisor=32,
)  # fmt: skip
CODER = dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=[1.0] * 4)
BOX_LOSS = dict(type="L1Loss", loss_weight=1.0)
ASSIGNER = dict(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.0, ignore_iof_thr=-1)
SAMPLER = dict(type="RandomSampler", num=32, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=False)


def retina_net(classes):
    return dict(
        type="RetinaNet",
        bbox_head=dict(
            type="RetinaHead", num_classes=classes, in_channels=32, stacked_convs=1, feat_channels=16,
            anchor_generator=dict(
                type="AnchorGenerator", octave_base_scale=4, scales_per_octave=1, ratios=[1.0],
                strides=[4, 8, 16, 32],
            ),
            bbox_coder=CODER, loss_bbox=BOX_LOSS,
            loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        ),
        train_cfg=dict(
            assigner=ASSIGNER, sampler=dict(type="PseudoSampler"), allowed_border=-1, pos_weight=-1
        ),
        test_cfg=dict(
            nms_pre=100, min_bbox_size=0, score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5),
            max_per_img=10,
        ),
    )  # fmt: skip


def extractor(size):
    return dict(
        type="SingleRoIExtractor", roi_layer=dict(type="RoIAlign", output_size=size, sampling_ratio=0),
        out_channels=32, featmap_strides=[4, 8, 16, 32],
    )  # fmt: skip


def faster_rcnn(classes, masks=False):
    proposals = dict(nms_pre=50, max_per_img=20, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0)
    mask = dict(
        mask_roi_extractor=extractor(14),
        mask_head=dict(
            type="FCNMaskHead", num_convs=1, in_channels=32, conv_out_channels=16, num_classes=classes,
            loss_mask=dict(type="CrossEntropyLoss", use_mask=True, loss_weight=1.0),
        ),
    )  # fmt: skip
    softmax = dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0)
    return dict(
        type="MaskRCNN" if masks else "FasterRCNN",
        rpn_head=dict(
            type="RPNHead", in_channels=32, feat_channels=16, bbox_coder=CODER, loss_bbox=BOX_LOSS,
            anchor_generator=dict(
                type="AnchorGenerator", scales=[4], ratios=[1.0], strides=[4, 8, 16, 32, 64]
            ),
            loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
        ),
        roi_head=dict(
            type="StandardRoIHead",
            bbox_roi_extractor=extractor(7),
            bbox_head=dict(
                type="Shared2FCBBoxHead", in_channels=32, fc_out_channels=32, roi_feat_size=7,
                num_classes=classes, bbox_coder=CODER, loss_cls=softmax, loss_bbox=BOX_LOSS,
            ),
            **(mask if masks else {}),
        ),
        train_cfg=dict(
            rpn=dict(assigner=ASSIGNER, sampler=SAMPLER, allowed_border=-1, pos_weight=-1),
            rpn_proposal=proposals,
            rcnn=dict(
                assigner=ASSIGNER, sampler={**SAMPLER, "add_gt_as_proposals": True}, mask_size=28,
                pos_weight=-1,
            ),
        ),
        test_cfg=dict(
            rpn=proposals,
            rcnn=dict(
                score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5), max_per_img=10, mask_thr_binary=0.5
            ),
        ),
    )  # fmt: skip


DETECTORS = {
    "retina_net": retina_net,
    "faster_rcnn": faster_rcnn,
    "mask_rcnn": lambda classes: faster_rcnn(classes, masks=True),
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """EmojiScenes as files in COCO's format."""
    root = tmp_path_factory.mktemp("scenes")
    drawn = EmojiScenes("test", ("base",), size=128, length=2, drawings=fake_drawings())
    write_scenes(root, drawn, ("base",))
    return root, drawn.table.names("base")


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", DETECTORS)
def test_trains_and_predicts_in_mmdet(name, backbone, scenes, tmp_path):
    from mmengine.runner import Runner

    root, classes = scenes
    body, channels = BACKBONES[backbone]
    model = DETECTORS[name](len(classes))
    levels = 4 if name == "retina_net" else 5
    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
        dict(type="Resize", scale=(128, 128)),
        dict(type="PackDetInputs"),
    ]
    sets = dict(
        type="CocoDataset", data_root=str(root), ann_file="instances.json", data_prefix=dict(img="images/"),
        metainfo=dict(classes=classes), pipeline=pipeline,
    )  # fmt: skip
    cfg = Config(
        dict(
            default_scope="mmdet",
            model=dict(
                data_preprocessor=PREPROCESSOR,
                backbone=body,
                neck=dict(type="FPN", in_channels=channels, out_channels=32, num_outs=levels),
                **model,
            ),
            work_dir=str(tmp_path),
            train_dataloader=dict(
                batch_size=2, num_workers=0, dataset=sets, sampler=dict(type="DefaultSampler", shuffle=True)
            ),
            train_cfg=dict(type="IterBasedTrainLoop", max_iters=1),
            optim_wrapper=dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=1e-3)),
            log_level="WARNING",
        )
    )
    runner = Runner.from_cfg(cfg)
    tower = next(runner.model.backbone.visual.parameters()).clone()
    runner.train()
    assert not torch.equal(next(runner.model.backbone.visual.parameters()), tower)
    item = runner.train_dataloader.dataset[0]
    runner.model.eval()
    with torch.no_grad():
        (found,) = runner.model.test_step({key: [value] for key, value in item.items()})
    boxes = found.pred_instances.bboxes
    assert boxes.shape[1] == 4
    assert torch.isfinite(boxes).all()
    if name == "mask_rcnn":
        assert found.pred_instances.masks.shape[1:] == (128, 128)
