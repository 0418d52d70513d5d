"""OV-LVIS through mmdet's data set, training and prediction, on small files in the official layout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_region_clip_detector import ARCH, bank, case, detector, sample, weights_of

from ovseg.evaluation.lvis_metric import OpenVocabularyLVISMetric
from ovseg.models.detectors.converters import load_region_clip
from ovseg.regions.converters import RegionCLIPWeights
from ovseg.towers.checkpoints import CheckpointError
from ovseg.vocab.shipped import read_list

ROOT = Path(__file__).resolve().parents[3]
ENTRIES = read_list("lvis_v1.regionclip")["classes"]
RARE = next(e for e in ENTRIES if e["frequency"] == "r")
COMMON = next(e for e in ENTRIES if e["frequency"] == "c")
BOX = [5, 6, 30, 20]


@pytest.fixture
def lvis(tmp_path):
    """``lvis_v1_{train,val}.json``: an image with a common and a rare object, one with a rare object alone."""
    x, y, w, h = BOX
    objects = [(1, COMMON), (1, RARE), (2, RARE)]
    document = {
        "images": [
            {"id": i, "coco_url": f"http://images.cocodataset.org/train2017/{i}.jpg", "height": 60, "width": 80,
             "neg_category_ids": [9], "not_exhaustive_category_ids": []}
            for i in (1, 2)
        ],
        "categories": [
            {"id": e["lvis_id"], "name": e["name"], "frequency": e["frequency"], "image_count": 1} for e in ENTRIES
        ],
        "annotations": [
            {"id": n, "image_id": i, "category_id": e["lvis_id"], "bbox": BOX, "area": w * h,
             "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}
            for n, (i, e) in enumerate(objects, start=1)
        ],
    }  # fmt: skip
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train2017").mkdir()
    for split in ("train", "val"):
        (tmp_path / f"annotations/lvis_v1_{split}.json").write_text(json.dumps(document))
    for i in (1, 2):
        Image.new("RGB", (80, 60)).save(tmp_path / f"train2017/{i}.jpg")
    return tmp_path


def test_the_tool_and_the_data_set(lvis):
    from ovseg.datasets.detection import OpenVocabularyLVIS

    command = [sys.executable, str(ROOT / "tools/prepare/ov_lvis.py"), str(lvis)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "1 images, 1 boxes" in done.stdout
    file = "annotations/lvis_v1_{}.json"
    base = OpenVocabularyLVIS(data_root=str(lvis), ann_file=file.format("train_base"), group="base",
                              filter_cfg={"filter_empty_gt": True})  # fmt: skip
    everything = OpenVocabularyLVIS(data_root=str(lvis), ann_file=file.format("val"), test_mode=True)
    assert (len(base), len(everything)) == (1, 2)
    assert (len(base.metainfo["classes"]), len(everything.metainfo["classes"])) == (866, 1203)
    (own,) = base.get_data_info(0)["instances"]
    assert base.metainfo["classes"][own["bbox_label"]] == COMMON["name"] and own["mask"]
    labels = [item["bbox_label"] for item in everything.get_data_info(0)["instances"]]
    assert [ENTRIES[k]["name"] for k in labels] == [COMMON["name"], RARE["name"]]
    assert Path(base.get_data_info(0)["img_path"]).is_file()
    (lvis / "annotations/lvis_v1_train.json").unlink()
    assert subprocess.run(command, capture_output=True).returncode == 2


def test_the_shipped_config_loads_images_boxes_and_masks(lvis):
    from mmdet.registry import DATASETS
    from mmdet.registry import METRICS as MMDET_METRICS
    from mmengine.config import Config

    cfg = Config.fromfile(ROOT / "configs/region_clip/ov_lvis_rn50.py")
    root = str(lvis) + "/"
    train, val = cfg.train_dataloader.dataset, cfg.val_dataloader.dataset
    train.dataset.update(data_root=root, ann_file="annotations/lvis_v1_train.json")
    val.update(data_root=root)
    item = DATASETS.build(train)[0]["data_samples"].gt_instances
    assert len(item.bboxes) == len(item.masks) == 1  # the rare object is not asked for
    (sample_one, sample_two) = DATASETS.build(val)
    assert (sample_one["data_samples"].img_id, sample_two["data_samples"].img_id) == (1, 2)
    cfg.val_evaluator.update(ann_file=root + "annotations/lvis_v1_val.json")
    assert MMDET_METRICS.build(cfg.val_evaluator).metrics == ("bbox", "segm")


def test_the_metric_tells_rare_from_common_and_masks_from_boxes(lvis):
    file = str(lvis / "annotations/lvis_v1_val.json")
    metric = OpenVocabularyLVISMetric(file, ["bbox", "segm"])
    x, y, w, h = BOX
    mask = torch.zeros(1, 60, 80, dtype=torch.bool)
    mask[0, y : y + h // 4, x : x + w] = True  # a quarter of the object
    for i in (1, 2):  # right in the first image; in the second nobody looked for this class
        found = {"bboxes": torch.tensor([[x, y, x + w, y + h]]), "scores": torch.ones(1),
                 "labels": torch.tensor([ENTRIES.index(COMMON)]), "masks": mask}  # fmt: skip
        metric.process({}, [{"img_id": i, "pred_instances": found}])
    result = {name.removeprefix("lvis/"): value for name, value in metric.evaluate(2).items()}
    assert result["bbox_APc"] == pytest.approx(1) and result["bbox_APr"] == 0 and result["bbox_APf"] == -1
    assert result["bbox_AP50"] == pytest.approx(0.5) and result["segm_APc"] == 0
    nothing = {"bboxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=int),
               "masks": mask[:0]}  # fmt: skip
    metric.process({}, [{"img_id": i, "pred_instances": nothing} for i in (1, 2)])
    assert metric.evaluate(2)["lvis/bbox_AP"] == 0
    with pytest.raises(ValueError, match="unknown metric 'proposal'"):
        OpenVocabularyLVISMetric(file, "proposal")


def masked_detector():
    """With a class-agnostic mask head on the maps of the last stage, as in the config."""
    from mmengine.config import ConfigDict

    from ovseg.registry import MODELS

    model = detector(gamma=None, mask_thr_binary=0.5)
    head = {"type": "mmdet.FCNMaskHead", "num_convs": 0, "in_channels": 32 * ARCH["width"], "conv_out_channels": 8,
            "num_classes": 5, "class_agnostic": True}  # fmt: skip
    model.roi_head.mask_head = MODELS.build(ConfigDict(head))
    model.roi_head.mask_roi_extractor = model.roi_head.bbox_roi_extractor
    model.roi_head.share_roi_extractor = False
    model.roi_head.train_cfg["mask_size"] = 14
    return model


def test_masks_are_trained_and_predicted_from_maps():
    from mmdet.structures.mask import BitmapMasks

    model = masked_detector().train()
    model.roi_head.bbox_head.set_rows(torch.randn(5, 24))
    bitmap = np.zeros((1, 64, 96), np.uint8)
    bitmap[:, 8:60, 8:60] = 1
    truth = {"bboxes": torch.tensor([[8.0, 8, 60, 60]]), "labels": torch.tensor([1])}
    item = sample((64, 96), gt_instances={**truth, "masks": BitmapMasks(bitmap, 64, 96)},
                  proposals={"bboxes": torch.tensor([[10.0, 6, 62, 58], [40, 4, 90, 30]])})  # fmt: skip
    item.set_metainfo({"scale_factor": (1.0, 1.0)})
    batch = {"inputs": [torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)], "data_samples": [item]}
    losses = model(**model.data_preprocessor(batch, training=True), mode="loss")
    assert {"loss_cls", "loss_bbox", "loss_mask"} <= set(losses)
    model.parse_losses(losses)[0].backward()
    assert model.roi_head.mask_head.upsample.weight.grad.abs().sum() > 0
    model.eval().set_vocabulary(bank(3))
    with torch.no_grad():
        (found,) = model.test_step(batch)
    assert found.pred_instances.masks.shape == (len(found.pred_instances), 64, 96)


def test_the_mask_head_of_a_published_checkpoint():
    model, weights = masked_detector(), weights_of(case("train_focal_bg"))
    with pytest.raises(CheckpointError, match="mask_head"):
        load_region_clip(model, weights)
    own = {name: torch.randn_like(value) for name, value in model.roi_head.mask_head.state_dict().items()}
    theirs = {
        name.replace("upsample", "deconv").replace("conv_logits", "predictor"): v for name, v in own.items()
    }
    load_region_clip(model, RegionCLIPWeights(**{**vars(weights), "mask_head": theirs}))
    torch.testing.assert_close(dict(model.roi_head.mask_head.state_dict()), own)
    load_region_clip(masked_detector(), weights, for_training=True)
