"""OV-COCO through mmdet's data set, pipeline, runner and metric, on small files in the official layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_region_clip_detector import ARCH, detector

from ovseg.datasets.open_vocabulary import open_vocabulary_split
from ovseg.evaluation.average_precision import average_precision
from ovseg.evaluation.ground_truth import parse_ground_truth, read_annotations
from ovseg.models.detectors import RegionCLIPSetup
from ovseg.towers.clip import CLIP, architecture
from ovseg.towers.table import TowerInfo
from ovseg.towers.tokenizer import Tokenizer
from ovseg.towers.weights import LoadedClip
from ovseg.vocab.shipped import read_list

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "region_clip"
ENTRIES = read_list("coco_ov65")["classes"]


@pytest.fixture
def coco(tmp_path):
    """13 images with five boxes each: every class once."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "val2017"
    folder.mkdir()
    document = {
        "images": [],
        "annotations": [],
        "categories": [{"id": e["coco_id"], "name": e["name"]} for e in ENTRIES],
    }
    for i in range(13):
        name = f"{i:012d}.jpg"
        Image.fromarray(rng.integers(0, 256, (60, 100, 3), np.uint8)).save(folder / name)
        document["images"].append({"id": i, "file_name": name, "height": 60, "width": 100})
        for k in range(5):
            box = [2 + 18 * k, 5, 16, 40]
            document["annotations"].append(
                {"id": len(document["annotations"]) + 1, "image_id": i, "category_id": ENTRIES[5 * i + k]["coco_id"],
                 "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            )  # fmt: skip
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2017_all.json").write_text(json.dumps(document))
    return tmp_path


def metric(root):
    from ovseg.evaluation.coco_metric import OpenVocabularyCocoMetric

    made = OpenVocabularyCocoMetric(
        ann_file=str(root / "annotations" / "instances_val2017_all.json"),
        metric="bbox",
        proposal_nums=(1, 10, 100),
    )
    made.dataset_meta = open_vocabulary_split("coco_ov65").metainfo()
    return made


def evaluate(root, right):
    """What the metric says of predictions that name class k right where ``right[k]``."""
    document = json.loads((root / "annotations" / "instances_val2017_all.json").read_text())
    labels = {e["coco_id"]: k for k, e in enumerate(ENTRIES)}
    made = metric(root)
    samples = []
    for image in document["images"]:
        own = [
            a
            for a in document["annotations"]
            if a["image_id"] == image["id"] and right[labels[a["category_id"]]]
        ]
        boxes = (
            torch.tensor([[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in own)])
            .float()
            .reshape(-1, 4)
        )
        found = {
            "bboxes": boxes,
            "scores": torch.ones(len(own)),
            "labels": torch.tensor([labels[a["category_id"]] for a in own]),
        }
        samples.append(
            {"img_id": image["id"], "ori_shape": (60, 100), "pred_instances": found, "gt_instances": {}}
        )
    made.process({}, samples)
    return made.evaluate(len(samples))


def test_perfect_predictions_and_the_identity_of_all(coco):
    perfect = evaluate(coco, [True] * 65)
    assert [perfect[f"coco/{key}"] for key in ("base_ap50", "novel_ap50", "bbox_mAP_50")] == pytest.approx(
        [1, 1, 1]
    )
    mixed = evaluate(coco, np.random.default_rng(1).random(65) < 0.6)
    base, novel = mixed["coco/base_ap50"], mixed["coco/novel_ap50"]
    assert 0 < novel < 1 and 0 < base < 1 and base != novel
    assert mixed["coco/bbox_mAP_50"] == pytest.approx((48 * base + 17 * novel) / 65, abs=5e-4)
    only_base = evaluate(coco, [e["group"] == "base" for e in ENTRIES])
    assert (only_base["coco/base_ap50"], only_base["coco/novel_ap50"]) == pytest.approx((1, 0))
    nothing = evaluate(coco, [False] * 65)
    assert nothing.keys() == mixed.keys() and not any(nothing.values())


def test_our_figures_are_those_of_mmdet(coco):
    """Random detections, near true boxes and anywhere."""
    rng, made = np.random.default_rng(2), metric(coco)
    path = coco / "annotations" / "instances_val2017_all.json"
    truths = list(parse_ground_truth(read_annotations(path), [e["name"] for e in ENTRIES]))
    columns, samples = [], []
    for truth in truths:
        boxes = np.concatenate([truth.boxes + rng.normal(0, 1.5, (5, 4)) for _ in range(4)])
        labels = np.where(rng.random(20) < 0.8, np.tile(truth.labels, 4), rng.integers(0, 65, 20))
        columns.append((boxes, rng.random(20), labels))
        names = ("bboxes", "scores", "labels")
        found = {name: torch.from_numpy(column) for name, column in zip(names, columns[-1])}
        samples.append({"img_id": truth.image_id, "ori_shape": (60, 100), "pred_instances": found})
    made.process({}, samples)
    theirs = made.evaluate(len(samples))
    ours = average_precision(truths, *zip(*columns), classes=65)
    for group in ("base", "novel"):
        own = ours.mean([k for k, e in enumerate(ENTRIES) if e["group"] == group])
        assert own["ap50"] == pytest.approx(theirs[f"coco/{group}_ap50"], abs=1e-9)
        assert own["ap"] == pytest.approx(theirs[f"coco/{group}_ap"], abs=1e-9)
        assert 0.05 < own["ap"] < own["ap50"] < 0.95
    assert ours.mean()["ap50"] == pytest.approx(theirs["coco/bbox_mAP_50"], abs=5e-4)


def tiny_tower():
    torch.manual_seed(0)
    vision = {"image_size": 224, "layers": [1, 2, 1, 1], "width": 8, "head_width": 64}
    text = {"context_length": 32, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 1}
    clip = CLIP(architecture({"embed_dim": 24, "vision_cfg": vision, "text_cfg": text})).eval()
    assert clip.visual.config.heads == ARCH["heads"]
    return LoadedClip(clip, Tokenizer(32), TowerInfo("rn_mini.random", ""))


@pytest.mark.filterwarnings("ignore:the words")
def test_ground_truth_boxes_through_the_shipped_config(coco, tmp_path):
    """Pipeline, data set, hook, detector and metric of the zero-shot config, with a tiny tower in place of RN50."""
    from mmengine.config import Config
    from mmengine.runner import Runner

    cfg = Config.fromfile(CONFIGS / "ov_coco_rn50_zero_shot_gt.py")
    root = str(coco) + "/"
    loader = cfg.test_dataloader
    loader.update(num_workers=0, persistent_workers=False)
    loader.dataset.update(data_root=root)
    loader.dataset.pipeline[2].update(scale=(160, 96))
    cfg.test_evaluator.update(ann_file=root + "annotations/instances_val2017_all.json")
    boxes = []
    model = detector(48, with_reg=False, score_thr=0.0, nms=1.0)
    runner = Runner(
        model, str(tmp_path / "work"), test_dataloader=loader, test_cfg=cfg.test_cfg, test_evaluator=cfg.test_evaluator,
        custom_hooks=[RegionCLIPSetup(tiny_tower(), templates="vild14")], default_scope="mmdet", log_level="ERROR",
        experiment_name="gt",
    )  # fmt: skip
    plain = model.predict
    model.predict = lambda *args, **kwargs: boxes.append(plain(*args, **kwargs)) or boxes[-1]
    result = runner.test()
    assert 0 <= result["coco/novel_ap50"] <= 1
    truth = {(2.0 + 18 * k, 5.0, 18.0 + 18 * k, 45.0) for k in range(5)}
    for batch in boxes:  # in pixels of the original images, although the network saw 96 x 160
        found = {tuple(round(v, 2) for v in box) for box in batch[0].pred_instances.bboxes.tolist()}
        assert found <= truth and found
        assert batch[0].pred_instances.labels.max() < 65
    torch.testing.assert_close(model.roi_head.bbox_head.rows.norm(dim=1), torch.ones(48))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("ov_*.py")), ids=lambda path: path.stem)
def test_configs_build_and_survive_dump_and_reload(path, tmp_path):
    from mmdet.registry import MODELS
    from mmengine.config import Config

    cfg = Config.fromfile(path)
    cfg.dump(tmp_path / "dumped.py")
    again = Config.fromfile(tmp_path / "dumped.py")
    with torch.device("meta"):
        ours, theirs = (MODELS.build(c.model) for c in (cfg, again))
    assert [(n, p.shape) for n, p in ours.named_parameters()] == [
        (n, p.shape) for n, p in theirs.named_parameters()
    ]


def test_truth_needs_boxes():
    from ovseg.models.detectors import TruthAsProposals

    with pytest.raises(ValueError, match="LoadAnnotations"):
        TruthAsProposals().transform({})
    results = {
        "gt_bboxes": torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 3]]),
        "gt_ignore_flags": np.array([False, True]),
    }
    assert TruthAsProposals().transform(results)["proposals"].tolist() == [[0, 0, 2, 2]]
