from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from test_ov_coco import CONFIGS, tiny_tower
from test_region_clip_detector import localiser_config, sample

from ovseg.models.detectors import RegionCLIPPretrainer


def pretrainer(localiser=None, **fields):
    preprocessor = {"type": "ovseg.TwoViewPreprocessor", **({} if localiser else {"localiser": None})}
    return RegionCLIPPretrainer(
        tiny_tower(), ["dog", "cat", "tree"], localiser, templates="vild14", threshold=0.0,
        data_preprocessor=preprocessor, **fields,
    )  # fmt: skip


def batch(**proposals):
    images = [torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8) for _ in range(2)]
    items = [sample((64, 96), **proposals) for _ in images]
    for item, caption in zip(items, ("a dog under a tree", ["a cat", "one cat"])):
        item.set_metainfo({"gt_caption": caption})
    return {"inputs": images, "data_samples": items}


BOXES = {"proposals": {"bboxes": torch.tensor([[4.0, 4, 50, 60], [30, 0, 90, 60], [0, 0, 20, 20]])}}


@pytest.mark.filterwarnings("ignore:the words")
def test_the_student_learns_and_nothing_else():
    model = pretrainer(regions=2)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = model.data_preprocessor(batch(**BOXES), training=True)
    losses = model(**data, mode="loss")
    assert set(losses) == {"loss_region_distill", "loss_concept_contrastive", "loss_img_txt_level"}
    model.parse_losses(losses)[0].backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1).step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("student.") for name in changed)
    assert any("attnpool" in name for name in changed) and not any("layer1" in name for name in changed)
    with torch.no_grad():
        assert model(**data).shape == (4, 24)  # two regions of each image


@pytest.mark.filterwarnings("ignore:the words")
def test_what_is_missing_is_named():
    model = pretrainer()
    data = model.data_preprocessor(batch())
    with pytest.raises(ValueError, match="no proposals and the model no localiser"):
        model(**data, mode="loss")
    with pytest.raises(ValueError, match="needs captions"):
        model(data["inputs"], [sample((64, 96), **BOXES)], mode="loss")
    with pytest.raises(ValueError, match="mode 'predict'"):
        model(**data, mode="predict")


@pytest.mark.filterwarnings("ignore:the words")
def test_long_captions_are_cut_to_what_the_tower_takes():
    model = pretrainer()
    rows = model._captions(["a dog " * 100, "a dog " * 100 + "at the end"])
    torch.testing.assert_close(rows[0], rows[1])
    assert model._captions([""]).shape == (1, 24)


@pytest.mark.filterwarnings("ignore:the words")
def test_the_shipped_config_s_pipeline_and_a_localiser(tmp_path):
    from mmengine.config import Config
    from mmengine.runner import Runner

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "captions.json").write_text(json.dumps([{"image": "a.png", "caption": "a dog"}] * 2))
    Config.fromfile(CONFIGS / "pretrain_rn50.py").dump(tmp_path / "dumped.py")
    cfg = Config.fromfile(tmp_path / "dumped.py")
    loader = cfg.train_dataloader
    loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    loader.dataset.update(ann_file=str(tmp_path / "captions.json"), data_prefix={"img_path": str(tmp_path)})
    loader.dataset.pipeline[1].update(scale=(128, 96))
    cfg.train_cfg.update(max_iters=2)
    runner = Runner(
        pretrainer(localiser_config()), str(tmp_path / "work"), train_dataloader=loader, train_cfg=cfg.train_cfg,
        optim_wrapper=cfg.optim_wrapper, param_scheduler=cfg.param_scheduler, default_scope="mmdet",
        log_level="ERROR", experiment_name="pretrain",
    )  # fmt: skip
    before = runner.model.student.attnpool.c_proj.weight.detach().clone()
    runner.train()
    assert not torch.equal(before, runner.model.student.attnpool.c_proj.weight)
