from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
import torch
import torchvision

from ovseg.ops import mmcv_ext

mmcv_ext.install()
pytestmark = pytest.mark.skipif(not mmcv_ext.is_stand_in(), reason="mmcv was compiled: nothing stands in")


def rois(count, images, size):
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(count, 2, generator=generator) * size * 0.6
    far = corner + torch.rand(count, 2, generator=generator) * size * 0.6 + 1
    which = torch.arange(count)[:, None] % images
    return torch.cat([which.float(), corner, far], dim=1)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_and_its_gradient_are_torchvisions(aligned, sampling_ratio):
    from mmcv.ops import RoIAlign

    ours = torch.randn(2, 5, 12, 14, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    boxes, weight = rois(9, 2, 100), torch.randn(9, 5, 3, 4)
    mine = RoIAlign((3, 4), 1 / 8, sampling_ratio, aligned=aligned)(ours, boxes)
    wanted = torchvision.ops.roi_align(theirs, boxes, (3, 4), 1 / 8, sampling_ratio, aligned)
    torch.testing.assert_close(mine, wanted)
    (mine * weight).sum().backward()
    (wanted * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert theirs.grad.abs().sum() > 0


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_focal_loss_and_its_gradient_by_the_formula(reduction):
    """Lin et al., Focal Loss for Dense Object Detection, 2017; the last class number is background."""
    from mmcv.ops import sigmoid_focal_loss

    logits = torch.randn(6, 4, requires_grad=True)
    plain = logits.detach().clone().requires_grad_()
    target = torch.tensor([0, 3, 4, 2, 4, 1])
    truth = torch.nn.functional.one_hot(target, 5)[:, :4]
    p = plain.sigmoid()
    wanted = -torch.where(truth == 1, 0.3 * (1 - p) ** 1.5 * p.log(), 0.7 * p**1.5 * (1 - p).log()).sum() / (
        6 if reduction == "mean" else 1
    )
    found = sigmoid_focal_loss(logits, target, 1.5, 0.3, None, reduction)
    torch.testing.assert_close(found, wanted)
    (3 * found).backward()
    (3 * wanted).backward()
    torch.testing.assert_close(logits.grad, plain.grad)


def test_nms_by_class_keeps_what_torchvision_keeps():
    from mmcv.ops import batched_nms

    boxes = rois(60, 1, 100)[:, 1:]
    scores, labels = torch.rand(60), torch.arange(60) % 3
    dets, kept = batched_nms(boxes, scores, labels, {"type": "nms", "iou_threshold": 0.4})
    wanted = torchvision.ops.batched_nms(boxes, scores, labels, 0.4)
    assert kept.tolist() == wanted.tolist()
    assert torch.equal(dets, torch.cat([boxes[wanted], scores[wanted, None]], dim=1))
    assert len(kept) < 60


def test_soft_nms_returns_boxes_with_lowered_scores():
    from mmcv.ops import soft_nms

    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]])
    dets, kept = soft_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), sigma=0.5, method="gaussian")
    assert kept.tolist() == [0, 2, 1]
    lowered = 0.8 * torch.exp(torch.tensor(-(0.9**2) / 0.5))
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.9, 0.7, lowered]))
    assert torch.equal(dets[:, :4], boxes[kept])


def test_other_operations_name_themselves_and_the_cure():
    from mmcv.ops import RoIAlign, deform_conv2d

    with pytest.raises(NotImplementedError, match=r"deform_conv_forward.*pip install"):
        deform_conv2d(torch.rand(1, 1, 8, 8), torch.zeros(1, 18, 6, 6), torch.rand(1, 1, 3, 3))
    with pytest.raises(NotImplementedError, match="pool_mode='max'"):
        RoIAlign(3, pool_mode="max")(torch.rand(1, 1, 8, 8), rois(1, 1, 8))


def test_a_compiled_mmcv_wins(monkeypatch):
    monkeypatch.delitem(sys.modules, "mmcv._ext")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    mmcv_ext.install()
    assert "mmcv._ext" not in sys.modules


@pytest.mark.slow
def test_mmcv_imports_in_a_fresh_process():
    code = "from ovseg.ops.mmcv_ext import install; install(); install(); import mmcv.ops"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def faster_rcnn():
    """mmdet's own Faster R-CNN on a ResNet-18, cut down."""
    rpn_test = {
        "nms_pre": 50,
        "max_per_img": 20,
        "nms": {"type": "nms", "iou_threshold": 0.7},
        "min_bbox_size": 0,
    }
    sampler = {"type": "RandomSampler", "num": 16, "pos_fraction": 0.5, "neg_pos_ub": -1}
    assigner = {"type": "MaxIoUAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.5, "min_pos_iou": 0.5}
    coder = {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0] * 4, "target_stds": [1.0] * 4}
    return {
        "type": "mmdet.FasterRCNN",
        "data_preprocessor": {"type": "mmdet.DetDataPreprocessor", "pad_size_divisor": 32, "mean": [128.0] * 3, "std": [64.0] * 3},
        "backbone": {"type": "mmdet.ResNet", "depth": 18, "num_stages": 4, "out_indices": (0, 1, 2, 3)},
        "neck": {"type": "mmdet.FPN", "in_channels": [64, 128, 256, 512], "out_channels": 16, "num_outs": 5},
        "rpn_head": {
            "type": "mmdet.RPNHead", "in_channels": 16, "feat_channels": 16,
            "anchor_generator": {"type": "AnchorGenerator", "scales": [8], "ratios": [1.0], "strides": [4, 8, 16, 32, 64]},
            "bbox_coder": coder,
        },
        "roi_head": {
            "type": "mmdet.StandardRoIHead",
            "bbox_roi_extractor": {
                "type": "SingleRoIExtractor", "out_channels": 16, "featmap_strides": [4, 8, 16, 32],
                "roi_layer": {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 0},
            },
            "bbox_head": {
                "type": "Shared2FCBBoxHead", "in_channels": 16, "fc_out_channels": 32, "num_classes": 3,
                "bbox_coder": coder,
            },
        },
        "train_cfg": {
            "rpn": {"assigner": {**assigner, "match_low_quality": True}, "sampler": sampler, "allowed_border": -1,
                    "pos_weight": -1, "debug": False},
            "rpn_proposal": rpn_test,
            "rcnn": {"assigner": assigner, "sampler": {**sampler, "add_gt_as_proposals": True}, "pos_weight": -1,
                     "debug": False},
        },
        "test_cfg": {
            "rpn": rpn_test,
            "rcnn": {"score_thr": 0.0, "nms": {"type": "soft_nms", "iou_threshold": 0.5}, "max_per_img": 10},
        },
    }  # fmt: skip


def test_a_faster_rcnn_trains_and_predicts():
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmdet.utils import register_all_modules
    from mmengine.config import ConfigDict
    from mmengine.structures import InstanceData

    register_all_modules(init_default_scope=False)
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(faster_rcnn()))
    sample = DetDataSample(
        metainfo={
            "img_shape": (64, 96),
            "ori_shape": (32, 48),
            "pad_shape": (64, 96),
            "scale_factor": (2.0, 2.0),
            "batch_input_shape": (64, 96),
        }
    )
    boxes = torch.tensor([[8.0, 8, 40, 50], [50, 10, 90, 60]])
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 2]))
    batch = {"inputs": [torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)], "data_samples": [sample]}

    data = model.data_preprocessor(batch, training=True)
    losses = model(**data, mode="loss")
    loss, _ = model.parse_losses(losses)
    loss.backward()
    reached = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert reached == {"backbone", "neck", "rpn_head", "roi_head"}
    before = model.roi_head.bbox_head.fc_cls.weight.detach().clone()
    torch.optim.SGD(model.parameters(), 0.01).step()
    assert not torch.equal(before, model.roi_head.bbox_head.fc_cls.weight)

    with torch.no_grad():
        (result,) = model.eval().test_step(batch)
    found = result.pred_instances
    assert 0 < len(found) <= 10
    assert found.bboxes[:, 2].max() <= 48 and found.bboxes[:, 3].max() <= 32  # pixels of the original image
