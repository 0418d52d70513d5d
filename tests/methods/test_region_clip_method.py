from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import ovseg
from ovseg.methods.region_clip import RegionCLIP
from ovseg.towers.clip import CLIP, architecture
from ovseg.towers.download import WeightsUnavailableError
from ovseg.towers.table import ASSETS, TowerInfo
from ovseg.towers.tokenizer import Tokenizer
from ovseg.towers.weights import LoadedClip

# Two stages of RN50's own widths are enough for a file that loads; its depth is read from the file.
VISION = {"image_size": 224, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}


@pytest.fixture
def published(tmp_path):
    """A file as ``regionclip_pretrained-cc_*.pth``, and the model in it."""
    torch.manual_seed(0)
    clip = CLIP(
        architecture({"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT, "quick_gelu": True})
    ).eval()
    state = {}
    for name, value in clip.state_dict().items():
        if name.startswith("visual.") and not name.endswith("num_batches_tracked"):
            state[name.replace("visual.", "backbone.")] = value
            state[name.replace("visual.", "teacher_backbone.")] = torch.zeros_like(value)
        if name.startswith("text."):
            state[name.replace("text.", "lang_encoder.")] = value
    path = tmp_path / "regionclip_pretrained-cc_rn50.pth"
    torch.save({"model": state}, path)
    return path, clip


def test_a_published_file_loads_with_its_own_words(published, photo):
    path, clip = published
    predictor = ovseg.build("region_clip", path)
    loaded = predictor.model.clip
    assert torch.equal(loaded.visual.attnpool.c_proj.weight, clip.visual.attnpool.c_proj.weight)
    assert torch.equal(loaded.text.text_projection, clip.text.text_projection)
    assert float(loaded.logit_scale.detach().exp()) == pytest.approx(100)
    found = predictor.detect(photo, ["car", "dog"], proposals="grid", threshold=0.0, background="none")
    assert len(found)


def test_a_fine_tuned_file_is_a_detector_completed_by_its_clip(published, tmp_path, monkeypatch, photo):
    path, clip = published
    state = {n: v for n, v in torch.load(path)["model"].items() if not n.startswith("lang_encoder.")}
    with pytest.raises(ValueError, match="neither a text tower nor a box regressor"):
        RegionCLIP.convert(state)
    assert RegionCLIP.owns(state) and not RegionCLIP.owns({"visual.conv1.weight": torch.ones(1)})
    predictor_of = "roi_heads.box_predictor"
    state |= {f"{predictor_of}.bbox_pred.weight": torch.randn(4, 32) / 100}
    state |= {f"{predictor_of}.bbox_pred.bias": torch.tensor([0.1, 0, 0, 0])}
    state |= {f"{predictor_of}.cls_score.weight": torch.randn(48, 32)}
    file = tmp_path / "regionclip_finetuned-coco_rn50.pth"
    torch.save({"model": state}, file)
    info = replace(RegionCLIP.trained["rn50.ov_coco"], hub_files=(), sources=(str(file),))
    monkeypatch.setattr(RegionCLIP, "trained", {**RegionCLIP.trained, "rn50.ov_coco": info})
    base = LoadedClip(clip, Tokenizer(77), TowerInfo("rn50.openai", ""))
    monkeypatch.setattr("ovseg.methods.trained.load_clip", lambda *args, **fields: base)
    predictor = ovseg.load("region_clip_rn50.ov_coco")
    assert predictor.model.config.classes == 48 and predictor.model.localiser is None
    boxes = np.array([[4, 4, 40, 40]], np.float32)
    moved, scores = predictor.regions(photo, ["car", "dog"], proposals=boxes)
    assert scores.shape == (1, 2) and not np.allclose(moved, boxes)  # the regressor acts
    predictor.save(tmp_path / "detector.safetensors")
    again = ovseg.load(tmp_path / "detector.safetensors")
    np.testing.assert_allclose(again.regions(photo, ["car", "dog"], proposals=boxes)[1], scores, atol=1e-5)


def test_weights_that_must_be_fetched_by_hand_name_the_file():
    with pytest.raises(WeightsUnavailableError, match=r"regionclip_pretrained-cc_rn50\.pth"):
        ovseg.load("region_clip_rn50.cc3m")


def test_the_embedded_detector_finds_objects_with_a_localiser_of_its_own():
    predictor = ovseg.load("region_clip_vit_tiny.emoji_boxes")
    assert predictor.protocol.name == "emoji_boxes" and predictor.model.localiser is not None
    scene = json.loads((ASSETS / "demo" / "scenes.json").read_text("utf-8"))[0]
    found = predictor.detect(ASSETS / "demo" / scene["file"], scene["classes"], threshold=0.2)
    assert found.masks is None and len(set(found.names)) >= 3
    assert found.boxes.min() >= 0 and found.boxes.max() <= 448
    boxes, scores = predictor.regions(ASSETS / "demo" / scene["file"], ["cow"])
    assert scores.shape == (len(boxes), 1) and scores.min() >= 0 and scores.max() <= 1
