"""RegionCLIP with a ViT: one step of each stage of the shipped configs, and the file that comes out of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from emoji_fakes import fake_drawings
from mmengine.config import Config
from mmengine.registry import init_default_scope
from safetensors.torch import load_file

import ovseg.models  # noqa: F401  (mmcv's operations, before mmdet)
from ovseg.datasets.emoji import EmojiScenes
from ovseg.datasets.emoji_boxes import EmojiBoxesDataset
from ovseg.methods.region_clip import RegionCLIP
from ovseg.models.detectors.converters import load_vit_regions, read_localiser
from ovseg.registry import MODELS
from ovseg.towers.checkpoints import CheckpointError
from ovseg.training.export import export_learned
from ovseg.training.region_clip import learned_detector

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "region_clip"
WORDS = ["dog", "cat", "tree"]


@pytest.fixture(scope="module")
def data():
    """Two scenes as the shipped pipelines pack them."""
    cfg = Config.fromfile(CONFIGS / "emoji_boxes.py")
    init_default_scope("mmdet")
    scenes = EmojiScenes("train", ("base",), size=128, length=2, drawings=fake_drawings())
    pipeline = cfg.train_dataloader.dataset.dataset.pipeline
    dataset = EmojiBoxesDataset(scenes=scenes, groups=("base",), pipeline=pipeline)
    items = [dataset[i] for i in range(2)]
    return {key: [item[key] for item in items] for key in ("inputs", "data_samples")}


def model_of(name, **changes):
    init_default_scope("mmdet")
    cfg = Config.fromfile(CONFIGS / f"{name}.py").model
    cfg.update(changes)
    torch.manual_seed(0)
    return MODELS.build(cfg)


def trained_by_a_step(model, data):
    """Names of what one step changes, and the losses."""
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = model(**model.data_preprocessor(data, training=True), mode="loss")
    model.parse_losses(losses)[0].backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1).step()
    return {
        name for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }, losses


def test_scenes_bring_boxes_labels_and_captions(data):
    sample = data["data_samples"][0]
    boxes = sample.gt_instances.bboxes.tensor
    assert 3 <= len(boxes) <= 6 and (boxes[:, 2:] > boxes[:, :2]).all()
    assert sample.gt_instances.labels.max() < 112 and " " in sample.gt_caption


def test_the_localiser_learns_from_boxes_and_its_file_is_read_back(data, tmp_path):
    model = model_of("emoji_localiser")
    changed, losses = trained_by_a_step(model, data)
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_bbox"}
    assert changed and all(name.startswith("bbox_head.rpn_") for name in changed)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "localiser.pth")
    localiser = model_of("emoji_boxes").localiser
    read_localiser(tmp_path / "localiser.pth", localiser)
    assert torch.equal(localiser.rpn_head.rpn_cls.weight, model.bbox_head.rpn_cls.weight)
    state = {n: v for n, v in model.state_dict().items() if "rpn_reg" not in n}
    torch.save({"state_dict": state}, tmp_path / "half.pth")
    with pytest.raises(CheckpointError, match="rpn_reg"):
        read_localiser(tmp_path / "half.pth", localiser)


@pytest.mark.filterwarnings("ignore:the words")
def test_pretraining_changes_what_runs_on_regions(data):
    model = model_of("emoji_pretrain", concepts=WORDS, localiser_weights=None, regions=3)
    changed, losses = trained_by_a_step(model, data)
    assert set(losses) == {"loss_region_distill", "loss_concept_contrastive", "loss_img_txt_level"}
    assert {"student.token", "student.visual.proj"} <= changed
    assert all(name.startswith("student.") for name in changed)
    assert {name.split(".")[4] for name in changed if "resblocks" in name} == {"3", "4", "5"}
    detector = model_of("emoji_boxes")
    load_vit_regions(detector, model.state_dict(), "the student")
    head = detector.roi_head.shared_head.regions
    assert torch.equal(head.token, model.student.token)
    assert torch.equal(head.visual.proj, model.student.visual.proj)
    with pytest.raises(CheckpointError, match="the student"):
        load_vit_regions(detector, {}, "the student")


@pytest.fixture
def detector():
    """The shipped detector with a localiser that finds something, and words."""
    model = model_of("emoji_boxes").eval()
    for value in model.localiser.rpn_head.parameters():
        torch.nn.init.normal_(value, std=0.05)
    model.roi_head.bbox_head.set_rows(torch.randn(112, 192))
    model.roi_head.bbox_head.scale = 20.0
    return model


def test_fine_tuning_changes_the_same_and_the_regressor(detector, data):
    changed, losses = trained_by_a_step(detector, data)
    assert {"loss_cls", "loss_bbox"} <= set(losses)
    heads = ("roi_head.shared_head.regions.", "roi_head.regressor.")
    assert "roi_head.shared_head.regions.token" in changed
    assert {"roi_head.regressor.weight", "roi_head.regressor.hidden.weight"} <= changed
    assert all(name.startswith(heads) for name in changed)


def test_the_plain_detector_equals_mmdet_s_and_survives_its_file(detector, data, tmp_path):
    plain = learned_detector(detector.state_dict(), "vit_tiny.emoji")
    batch = detector.data_preprocessor(data)["inputs"]["image"][:1]
    size = (batch.shape[2], batch.shape[3])
    with torch.no_grad():
        features = detector.backbone(batch)
        (theirs,) = detector.localiser.predict(features, [size])
        ours = plain.propose(batch)
        torch.testing.assert_close(ours.boxes, theirs.bboxes, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(ours.logits, theirs.logits, atol=1e-4, rtol=1e-4)
        rois = torch.cat([torch.zeros(len(ours), 1), ours.boxes], dim=1)
        found = detector.roi_head._bbox_forward(features, rois)
        embedded, moves = plain._read(batch, ours.boxes)
        torch.testing.assert_close(moves, found["bbox_pred"], atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(embedded, found["bbox_feats"], atol=1e-3, rtol=1e-3)
    path = export_learned(plain, "vit_tiny.emoji", tmp_path / "detector.safetensors")
    stored = load_file(path)
    assert path.stat().st_size < 8e6 and not any("resblocks.0" in name or "text" in name for name in stored)
    assert RegionCLIP.owns(stored) and RegionCLIP.fields_of(stored) == {"detector": "emoji_boxes"}
    assert set(RegionCLIP.convert(stored)) == set(stored)


def test_words_of_training_have_exponents_of_their_own(detector):
    from dataclasses import replace

    from ovseg.vocab.text_bank import TextBank
    from ovseg.vocab.vocabulary import Vocabulary

    plain = learned_detector(detector.state_dict(), "vit_tiny.emoji")
    plain.config = replace(plain.config, base=(1.0, 0.0, 0.0), novel=(0.0, 0.0, 1.0))
    rows = torch.stack([plain.rows[0], torch.randn(192)])[:, None]
    bank = TextBank(rows, False, torch.tensor([0, 1]), Vocabulary.of(["first", "other"]))
    batch = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        proposals = plain.propose(batch)
        scores = plain.regions(batch, proposals, bank, 20.0).scores
    torch.testing.assert_close(scores[:, 1], proposals.objectness)
    assert not torch.allclose(scores[:, 0], proposals.objectness)


def test_a_model_without_a_localiser_says_so(photo):
    import ovseg

    predictor = ovseg.load("region_clip_vit_tiny.emoji")
    with pytest.raises(ValueError, match="no localiser of its own"):
        predictor.detect(photo, WORDS, proposals="own")


def test_an_unknown_detector_is_named():
    with pytest.raises(ValueError, match="unknown detector 'x'"):
        RegionCLIP("x").build(None, None)
