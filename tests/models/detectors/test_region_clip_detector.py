"""RegionCLIP on mmdet: against the golden vectors of its authors' code, against mmdet, and its own promises."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import ovseg.models  # noqa: F401  (mmcv's operations, before mmdet)
from ovseg.evaluation.golden.case import Case
from ovseg.models.detectors import FrozenLocaliser, TwoViewPreprocessor
from ovseg.models.detectors.converters import convert_localiser, load_region_clip
from ovseg.regions.converters import convert_region_clip
from ovseg.registry import MODELS
from ovseg.towers.checkpoints import CheckpointError
from ovseg.towers.table import OPENAI_MEAN, OPENAI_STD
from ovseg.vocab.text_bank import TextBank
from ovseg.vocab.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[3]
OWN = ROOT / "tests" / "golden" / "regionclip"
FULL = Path(os.environ.get("OVSEG_GOLDEN", ROOT.parent / "shared" / "golden")) / "regionclip"

ARCH = {"layers": (1, 2, 1, 1), "width": 8, "heads": 4, "image_size": 224, "output_dim": 24}
CODER = {"type": "mmdet.DeltaXYWHBBoxCoder", "target_means": [0.0] * 4, "target_stds": [0.1, 0.1, 0.2, 0.2]}
RPN_CODER = {"type": "mmdet.DeltaXYWHBBoxCoder", "target_means": [0.0] * 4, "target_stds": [1.0] * 4}


def localiser_config(convs=1, fpn=False):
    anchors = {
        "type": "mmdet.AnchorGenerator",
        "scales": [2, 4],
        "ratios": [0.5, 1.0, 2.0],
        "strides": [16],
        "scale_major": False,
    }
    backbone = {"type": "mmdet.ResNet", "depth": 50, "base_channels": 4, "num_stages": 3, "strides": (1, 2, 2),
                "dilations": (1, 1, 1), "out_indices": (2,), "style": "caffe"}  # fmt: skip
    config = {"type": FrozenLocaliser, "before": 40, "after": 12, "backbone": backbone, "neck": None,
              "rpn_head": {"type": "mmdet.RPNHead", "in_channels": 64, "feat_channels": 8, "num_convs": convs,
                           "anchor_generator": anchors, "bbox_coder": RPN_CODER}}  # fmt: skip
    if fpn:
        backbone |= {"out_indices": (0, 1, 2)}
        config["neck"] = {"type": "mmdet.FPN", "in_channels": [16, 32, 64], "out_channels": 8, "num_outs": 4}
        anchors |= {"scales": [8], "strides": [4, 8, 16, 32]}
        config["rpn_head"] |= {"in_channels": 8}
    return config


def detector(classes=5, localiser=None, with_reg=True, gamma=0.5, background_weight=0.2, **test):
    from mmengine.config import ConfigDict

    config = {
        "type": "ovseg.RegionCLIPDetector",
        "data_preprocessor": {"type": "ovseg.TwoViewPreprocessor", "bgr_to_rgb": False,
                              **({"localiser": None} if localiser is None else {})},
        "backbone": {"type": "ovseg.CLIPResNetC4", "arch": ARCH},
        "roi_head": {
            "type": "ovseg.RegionRoIHead",
            "shared_head": {"type": "ovseg.CLIPPoolHead", "arch": ARCH},
            "bbox_roi_extractor": {
                "type": "mmdet.SingleRoIExtractor", "out_channels": 128, "featmap_strides": [16],
                "roi_layer": {"type": "RoIAlign", "output_size": 14, "sampling_ratio": 0},
            },
            "bbox_head": {
                "type": "ovseg.CosineBBoxHead", "in_channels": 24, "num_classes": classes, "with_reg": with_reg,
                "bbox_coder": CODER,
                "loss_cls": {"type": "ovseg.RegionCrossEntropy", "gamma": gamma, "background_weight": background_weight},
            },
        },
        "localiser": localiser,
        "train_cfg": {"rcnn": {
            "assigner": {"type": "mmdet.MaxIoUAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.5, "min_pos_iou": 0.5,
                         "match_low_quality": False},
            "sampler": {"type": "mmdet.RandomSampler", "num": 512, "pos_fraction": 0.25, "add_gt_as_proposals": True},
            "pos_weight": -1, "debug": False,
        }},
        "test_cfg": {"rcnn": {"score_thr": 0.001, "nms": 0.5, "max_per_img": 100, **test}},
    }  # fmt: skip
    torch.manual_seed(0)
    return MODELS.build(ConfigDict(config))


def sample(size, original=None, **fields):
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    item = DetDataSample(
        metainfo={"img_shape": tuple(size), "ori_shape": tuple(original or size), "img_path": ""}
    )
    for name, values in fields.items():
        setattr(item, name, InstanceData(**values))
    return item


def case(name):
    path = next(
        (folder / f"{name}.npz" for folder in (OWN, FULL) if (folder / f"{name}.npz").is_file()), None
    )
    if path is None:
        pytest.skip(f"{name} is not here")
    return Case.read(path)


def batch_of(golden, **extra):
    hp = golden.hp
    images = [golden.tensor(f"image{i}") for i in range(len(hp["sizes"]))]
    items = []
    for i, size in enumerate(hp["sizes"]):
        fields = {
            "proposals": {"bboxes": golden.tensor(f"boxes{i}"), "logits": golden.tensor(f"objectness{i}")}
        }
        if hp["mode"] == "train":
            fields["gt_instances"] = {
                "bboxes": golden.tensor(f"gt_boxes{i}"),
                "labels": golden.tensor(f"gt_classes{i}"),
            }
        items.append(sample(size, hp["out"][i] if hp.get("out") else None, **fields))
    return {"inputs": images, "data_samples": items}


def weights_of(golden):
    return convert_region_clip({k[3:]: golden.tensor(k) for k in golden.arrays if k.startswith("sd/")})


def test_training_through_mmdet_gives_the_authors_losses_and_gradients():
    golden = case("train_focal_bg")
    model = detector(golden.hp["K"], gamma=golden.hp["focal"], background_weight=golden.hp["bg"])
    load_region_clip(model, weights_of(golden))
    data = model.data_preprocessor(batch_of(golden), training=True)
    torch.testing.assert_close(data["inputs"]["image"].mean(dim=(2, 3)), golden.tensor("clip_input_mean"))
    losses = model.train()(**data, mode="loss")
    torch.testing.assert_close(losses["loss_cls"], golden.tensor("loss_cls"), rtol=1e-4, atol=0)
    torch.testing.assert_close(losses["loss_bbox"], golden.tensor("loss_box_reg"), rtol=1e-4, atol=0)
    model.parse_losses(losses)[0].backward()
    got = model.backbone.layer3[0].conv1.weight.grad
    wanted = golden.tensor("grad/backbone.layer3.0.conv1.weight")
    assert (got - wanted).abs().max() < 1e-3 * wanted.abs().max()
    untouched = [p for p in (*model.backbone.conv1.parameters(), *model.backbone.layer1.parameters())]
    assert all(p.grad is None for p in untouched)


@pytest.mark.parametrize("name", ["zs_gt_boxes", "zs_rpn_score_fusion", "finetuned_openset_box_delta"])
def test_prediction_through_mmdet_gives_the_authors_detections(name):
    golden = case(name)
    hp, weights = golden.hp, weights_of(golden)
    model = detector(
        hp["K"], with_reg=not hp["no_delta"], score_thr=hp["thr"], max_per_img=hp["topk"],
        objectness="raw_logit" if hp["mult"] else None,
    ).eval()  # fmt: skip
    load_region_clip(model, weights)
    if weights.test_rows is not None:
        vocabulary = Vocabulary.of([f"class {k}" for k in range(len(weights.test_rows))])
        model.set_vocabulary(
            TextBank(weights.test_rows[:, None], False, torch.arange(len(vocabulary)), vocabulary)
        )
    with torch.no_grad():
        found = [item.pred_instances for item in model.test_step(batch_of(golden))]
    for i, instances in enumerate(found):
        labels, boxes = golden.tensor(f"det_classes{i}"), golden.tensor(f"det_boxes{i}")
        apart = (boxes[:, None] - instances.bboxes).abs().amax(dim=2)
        apart[labels[:, None] != instances.labels] = torch.inf
        assert len(instances.labels) == len(labels)
        assert apart.min(dim=1).values.max() < 7e-3  # 2e-5 of the largest coordinate
        nearest = apart.argmin(dim=1)
        torch.testing.assert_close(
            instances.scores[nearest], golden.tensor(f"det_scores{i}"), atol=2e-4, rtol=0
        )


def test_one_image_two_normalisations():
    preprocessor = TwoViewPreprocessor()  # BGR comes in, as mmcv reads
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    small = torch.randint(0, 256, (3, 12, 30), dtype=torch.uint8)
    inputs = preprocessor({"inputs": [image, small], "data_samples": None})["inputs"]
    clip, bgr = inputs["image"], inputs["localiser"]
    mean, std = (255 * torch.tensor(v)[:, None, None] for v in (OPENAI_MEAN, OPENAI_STD))
    offset = torch.tensor([103.53, 116.28, 123.675])[:, None, None]
    torch.testing.assert_close(bgr[0], image - offset)
    torch.testing.assert_close(clip[0] * std + mean, (bgr[0] + offset).flip(0), atol=1e-3, rtol=1e-5)
    assert not clip[1, :, 12:].any() and not bgr[1, :, 12:].any()  # both are padded after their normalisation
    with pytest.raises(ValueError, match="two views differ"):
        TwoViewPreprocessor(batch_augments=[{"type": "mmdet.BatchFixedSizePad"}])


def to_detectron2(state, convs):
    """A localiser's state dict in detectron2's names, written by hand and not by the converter's tables."""
    out = {}
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        name = name.replace("rpn_head.rpn_cls", "proposal_generator.rpn_head.objectness_logits")
        name = name.replace("rpn_head.rpn_reg", "proposal_generator.rpn_head.anchor_deltas")
        for k in range(convs):
            name = name.replace(f"rpn_head.rpn_conv.{k}.conv.", f"proposal_generator.rpn_head.conv.conv{k}.")
        name = name.replace("rpn_head.rpn_conv.", "proposal_generator.rpn_head.conv.")
        for level in range(4):
            for side, theirs in (("lateral", "lateral"), ("fpn", "output")):
                name = name.replace(f"neck.{side}_convs.{level}.bn", f"backbone.fpn_{theirs}{level + 2}.norm")
            name = name.replace(f"neck.lateral_convs.{level}.conv", f"backbone.fpn_lateral{level + 2}")
            name = name.replace(f"neck.fpn_convs.{level}.conv", f"backbone.fpn_output{level + 2}")
            name = name.replace(f"backbone.layer{level + 1}.", f"backbone.res{level + 2}.")
        name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        if name.startswith("backbone.res"):
            for k in "123":
                name = name.replace(f".bn{k}.", f".conv{k}.norm.")
        name = name.replace("backbone.bn1.", "backbone.stem.conv1.norm.").replace(
            "backbone.conv1.", "backbone.stem.conv1."
        )
        out[name] = value
    return out


@pytest.mark.parametrize(("convs", "fpn"), [(1, False), (2, True)])
def test_localisers_of_detectron2_load_strictly(convs, fpn):
    torch.manual_seed(0)
    theirs = MODELS.build(localiser_config(convs, fpn))
    state = to_detectron2(theirs.state_dict(), convs)
    state |= {
        "roi_heads.box_predictor.cls_score.weight": torch.ones(2),
        "proposal_generator.anchor_generator.cell_anchors.0": torch.ones(2),
    }
    torch.manual_seed(1)
    ours = MODELS.build(localiser_config(convs, fpn))
    ours.load_state_dict(convert_localiser(state))
    image = torch.randn(1, 3, 64, 96)
    one, other = (model.predict(image, [(64, 96)])[0] for model in (theirs, ours))
    torch.testing.assert_close(one.bboxes, other.bboxes)
    with pytest.raises(ValueError, match="no part of a detectron2 proposal network"):
        convert_localiser({"backbone.res2.0.conv4.weight": torch.ones(1)})


@pytest.mark.parametrize("fpn", [False, True])
def test_proposals_are_those_of_mmdets_own_rpn(fpn):
    from mmengine.config import ConfigDict

    torch.manual_seed(0)
    localiser = MODELS.build(localiser_config(fpn=fpn))
    torch.nn.init.normal_(localiser.rpn_head.rpn_cls.weight, std=1)
    torch.nn.init.normal_(localiser.rpn_head.rpn_reg.weight, std=0.1)
    image, size = torch.randn(2, 3, 64, 96), [(64, 96), (50, 80)]
    cfg = ConfigDict(nms_pre=40, max_per_img=12, nms={"type": "nms", "iou_threshold": 0.9}, min_bbox_size=0)
    with torch.no_grad():
        features = localiser.backbone(image)
        features = features if localiser.neck is None else localiser.neck(features)
        theirs = localiser.rpn_head.predict_by_feat(
            *localiser.rpn_head(features), batch_img_metas=[{"img_shape": s} for s in size], cfg=cfg
        )
    for ours, wanted in zip(localiser.predict(image, size), theirs):
        torch.testing.assert_close(ours.bboxes, wanted.bboxes, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(ours.scores, wanted.scores)
        torch.testing.assert_close(ours.logits.sigmoid(), ours.scores)
    assert not any(p.requires_grad for p in localiser.parameters())
    assert not localiser.train().training


def test_a_merged_checkpoint_needs_its_localiser():
    model = detector(localiser=localiser_config())
    weights = weights_of(case("train_focal_bg"))
    with pytest.raises(CheckpointError, match=r"tensors missing \(localiser\."):
        load_region_clip(model, weights)
    other = to_detectron2(model.localiser.state_dict(), 1)
    load_region_clip(model, weights, other)
    torch.testing.assert_close(model.roi_head.bbox_head.rows.norm(dim=1), torch.ones(5))
    without = {k: v for k, v in _named(case("train_focal_bg")).items() if "bbox_pred" not in k}
    pretrained, model = convert_region_clip(without), detector()
    with pytest.raises(CheckpointError, match=r"roi_head\.bbox_head\.fc_reg"):
        load_region_clip(model, pretrained)
    load_region_clip(model, pretrained, for_training=True)
    load_region_clip(detector(with_reg=False), pretrained)


def _named(golden):
    return {k[3:]: golden.tensor(k) for k in golden.arrays if k.startswith("sd/")}


def bank(count, seed=0):
    rows = torch.randn(count, 1, 24, generator=torch.Generator().manual_seed(seed))
    return TextBank(rows, False, torch.arange(count), Vocabulary.of([f"word {k}" for k in range(count)]))


def test_a_step_of_training_and_a_prediction_with_the_localiser():
    model = detector(localiser=localiser_config(), objectness="sigmoid").train()
    model.roi_head.bbox_head.set_rows(torch.randn(5, 24))
    truth = {"bboxes": torch.tensor([[8.0, 8, 60, 60]]), "labels": torch.tensor([1])}
    images = [torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)]
    batch = {"inputs": images, "data_samples": [sample((64, 96), (128, 192), gt_instances=truth)]}
    data = model.data_preprocessor(batch, training=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.01)
    model.parse_losses(model(**data, mode="loss"))[0].backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert any("layer4" in name for name in changed) and any("fc_reg" in name for name in changed)
    assert not any(part in name for name in changed for part in ("localiser", "running", "rows", "layer1"))

    model.eval()
    for count in (3, 40):  # any vocabulary, no rebuild
        model.set_vocabulary(bank(count))
        with torch.no_grad():
            (item,) = model.test_step(batch)
        found = item.pred_instances
        assert len(found) and found.labels.max() < count
        assert found.bboxes[:, 2].max() <= 192 and found.bboxes[:, 3].max() <= 128


def test_swapping_the_vocabulary_is_deterministic_and_moves_no_box_of_ground_truth():
    model = detector(with_reg=False, score_thr=0.0, nms=1.0, max_per_img=1000).eval()
    boxes = torch.tensor([[8.0, 8, 60, 60], [30, 4, 90, 50]])
    batch = {"inputs": [torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)]}

    def run(words):
        model.set_vocabulary(words)
        items = [sample((64, 96), proposals={"bboxes": boxes.clone()})]
        with torch.no_grad():
            return model.test_step({**batch, "data_samples": items})[0].pred_instances

    first, other, again = run(bank(4)), run(bank(6, seed=1)), run(bank(4))
    assert torch.equal(first.scores, again.scores) and torch.equal(first.labels, again.labels)
    assert len(first.scores) == 8 and len(other.scores) == 12
    assert torch.equal(first.bboxes.unique(dim=0), other.bboxes.unique(dim=0))
    assert torch.equal(first.bboxes.unique(dim=0), boxes)


def test_without_proposals_and_localiser_it_says_what_to_add():
    batch = {"inputs": [torch.zeros(3, 64, 96, dtype=torch.uint8)], "data_samples": [sample((64, 96))]}
    with pytest.raises(ValueError, match="TruthAsProposals"):
        detector().eval().test_step(batch)


def test_rows_must_fit():
    with pytest.raises(ValueError, match=r"\(3, 24\) do not fit this head"):
        detector().roi_head.bbox_head.set_rows(torch.randn(3, 24))
