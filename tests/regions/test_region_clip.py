from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ovseg.regions.converters import convert_region_clip, to_region_clip
from ovseg.regions.proposals import Proposals
from ovseg.regions.region_clip import (
    RegionRules,
    detect_regions,
    freeze_for_regions,
    match_regions,
    pad_batch,
    pretraining_outputs,
)
from ovseg.regions.select import Selection
from ovseg.towers.clip_resnet import ModifiedResNet, ResNetConfig


def resnet(seed=0, dim=24):
    torch.manual_seed(seed)
    return ModifiedResNet(ResNetConfig((1, 2, 1, 1), 8, 4, 64, dim)).eval()


def published(**extra):
    """A checkpoint in detectron2's layout."""
    tower = {n: v for n, v in resnet().state_dict().items() if not n.endswith("num_batches_tracked")}
    head = "roi_heads.box_predictor."
    rows = {head + "cls_score.weight": torch.randn(5, 24), head + "cls_bg_score.weight": torch.zeros(1, 24)}
    box = {head + "bbox_pred.weight": torch.randn(4, 24), head + "bbox_pred.bias": torch.randn(4)}
    return {f"backbone.{n}": v for n, v in tower.items()} | rows | box | extra


def test_there_and_back_is_identical():
    state = published(
        **{
            "offline_backbone.stem.conv1.weight": torch.randn(2),
            "teacher_backbone.conv1.weight": torch.randn(2),
        }
    )
    back = to_region_clip(convert_region_clip(state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())


def test_the_tower_loads_strictly():
    weights = convert_region_clip(published())
    resnet(seed=1).load_state_dict(weights.visual)
    assert weights.rows.shape == (5, 24) and weights.test_rows is None
    assert set(weights.regressor) == {"weight", "bias"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {"proposal_generator.rpn_head.conv.weight": torch.ones(1)}, "proposal_generator"),
        (lambda s: {n: v for n, v in s.items() if n != "backbone.conv1.weight"}, "backbone.conv1.weight"),
        (lambda s: s | {"roi_heads.box_predictor.cls_bg_score.weight": torch.ones(1, 24)}, "zero background"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        convert_region_clip(change(published()))


def test_a_missing_tensor_is_missed():
    state = published()
    del state["backbone.layer3.0.conv2.weight"]
    with pytest.raises(RuntimeError, match=r"layer3\.0\.conv2"):
        resnet().load_state_dict(convert_region_clip(state).visual)


def test_padding_is_zero_right_and_below():
    batch = pad_batch([torch.ones(3, 4, 6), torch.ones(3, 5, 2)], divisor=4)
    assert batch.shape == (2, 3, 8, 8)
    assert batch[0, :, :4, :6].all() and batch[0].sum() == 3 * 24
    assert batch[1, :, :5, :2].all() and batch[1].sum() == 3 * 10


def test_freezing():
    tower = resnet()
    freeze_for_regions(tower)
    trained = {name for name, p in tower.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"layer2", "layer3", "layer4", "attnpool"}
    assert not any(".bn" in name or "downsample.1" in name for name in trained)


def test_regions_take_the_label_of_the_nearest_truth():
    truth = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]])
    boxes = torch.tensor([[0.0, 0, 10, 9], [21, 20, 40, 40], [60, 60, 70, 70]])
    labels, targets = match_regions(boxes, truth, torch.tensor([2, 0]), 5)
    assert labels.tolist() == [2, 0, 5]
    assert targets[0].abs().sum() > 0 and not targets[2].any()
    none, _ = match_regions(boxes, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), 5)
    assert none.tolist() == [5, 5, 5]


def test_detections_are_in_the_pixels_asked_for():
    logits = torch.tensor([[9.0, 0, 0], [0, 9.0, 0], [0, 0, 9]])
    proposals = Proposals(torch.tensor([[0.0, 0, 10, 10], [20, 0, 90, 30], [5, 5, 9, 9]]))
    rules = RegionRules(selection=Selection(threshold=0.5))
    found = detect_regions(logits, proposals, None, (40, 50), (80, 100), rules)
    assert found.labels.tolist() == [0, 1] and found.regions.tolist() == [0, 1]  # the third is background
    assert found.boxes.tolist() == [[0, 0, 20, 20], [40, 0, 100, 60]]
    with pytest.raises(ValueError, match="needs proposals with objectness"):
        detect_regions(logits, proposals, None, (40, 50), (40, 50), replace(rules, objectness="sigmoid"))


def test_pretraining_keeps_regions_that_the_teacher_is_sure_of():
    student, teacher = resnet(), resnet(1, dim=16)
    batch, boxes = torch.randn(2, 3, 64, 96), [torch.tensor([[0.0, 0, 40, 40], [30, 10, 90, 60]])] * 2
    arguments = (student, teacher, batch, boxes, torch.randn(6, 24), torch.randn(2, 24))
    own = torch.randn(16) + 0.03 * torch.randn(6, 16)  # alike, so that the teacher has doubts
    step = pretraining_outputs(*arguments, teacher_concepts=own, threshold=0.0)
    assert step.kept.all() and step.teacher.shape == (4, 6)
    sure = float(step.teacher.max(dim=1).values.median())
    fewer = pretraining_outputs(*arguments, teacher_concepts=own, threshold=sure)
    assert 0 < fewer.kept.sum() < 4 and len(fewer.concepts) == fewer.kept.sum()
    all_again = pretraining_outputs(*arguments, teacher_concepts=own, threshold=1.1)
    assert all_again.kept.all()
    sum(step.losses.values()).backward()
    assert student.conv1.weight.grad.abs().sum() > 0 and teacher.conv1.weight.grad is None
