"""CLIP backbones, the similarity head and the segmentor in mmseg's own training and prediction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("mmseg")

from mmengine.config import Config
from mmseg.registry import MODELS

import ovseg.models  # noqa: F401
from ovseg.models.backbones import CLIPResNet, CLIPViT
from ovseg.models.clip_source import open_clip_source
from ovseg.models.decode_heads import SimilarityHead
from ovseg.models.segmentors import OpenVocabularySegmentor

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
CLASSES = ["sky", "person: man | woman", "dog"]
NORM = {"type": "BN", "requires_grad": True}
PREPROCESSOR = {
    "type": "mmseg.SegDataPreProcessor", "mean": [120.0] * 3, "std": [60.0] * 3, "bgr_to_rgb": True,
    "pad_val": 0, "seg_pad_val": 255, "size": (64, 64), "test_cfg": {"size_divisor": 32},
}  # fmt: skip
VIT_BACKBONE = {"type": "ovseg.CLIPViT", "tower": VIT, "out_blocks": (0, 1, 2, -1)}
HEAD = {"num_classes": 3, "norm_cfg": NORM, "channels": 16}
UPER = {
    "type": "mmseg.UPerHead", "in_channels": [48] * 4, "in_index": [0, 1, 2, 3], "pool_scales": (1, 2), **HEAD
}  # fmt: skip
FPN_NECK = {"type": "mmseg.FPN", "in_channels": [48] * 4, "out_channels": 16, "num_outs": 4}
FPN_HEAD = {
    "type": "mmseg.FPNHead", "in_channels": [16] * 4, "in_index": [0, 1, 2, 3],
    "feature_strides": [4, 8, 16, 32], **HEAD,
}  # fmt: skip
WORDS = {
    "type": "ovseg.SimilarityHead",
    "tower": VIT,
    "classes": CLASSES,
    "norm_cfg": NORM,
    "templates": "imagenet7",
}
SWIN = {
    "type": "mmseg.SwinTransformer", "embed_dims": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2),
    "window_size": 4, "pretrain_img_size": 64, "out_indices": (0, 1, 2, 3),
}  # fmt: skip
RESNET18 = {
    "type": "mmseg.ResNetV1c", "depth": 18, "num_stages": 4, "out_indices": (0, 1, 2, 3), "norm_cfg": NORM,
    "base_channels": 8, "stem_channels": 8,
}  # fmt: skip
MODELS_UNDER_TEST = {
    "clip_vit_uper": {"backbone": VIT_BACKBONE, "decode_head": UPER},
    "clip_vit_semantic_fpn": {"backbone": VIT_BACKBONE, "neck": FPN_NECK, "decode_head": FPN_HEAD},
    "clip_resnet_uper": {
        "backbone": {"type": "ovseg.CLIPResNet", "tower": RESNET},
        "decode_head": {**UPER, "in_channels": [32, 64, 128, 256]},
    },
    "resnet_similarity": {
        "backbone": RESNET18, "decode_head": {**WORDS, "in_channels": 64, "channels": 16, "in_index": 3}
    },
    "swin_similarity": {
        "backbone": SWIN,
        "decode_head": {
            **WORDS, "in_channels": [12, 24, 48, 96], "channels": 16, "in_index": [0, 1, 2, 3],
            "input_transform": "resize_concat",
        },
    },
    "clip_vit_similarity": {
        "backbone": {**VIT_BACKBONE, "dense": "maskclip"},
        "decode_head": {**WORDS, "in_channels": 32, "channels": 32, "in_index": 4, "project": False},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("scenes")
    for name in "abcd":
        for kind, array in (
            ("images", rng.integers(0, 256, (70, 90, 3), np.uint8)),
            ("masks", rng.choice(np.array([0, 1, 2, 255], np.uint8), (70, 90))),
        ):
            (root / kind).mkdir(exist_ok=True)
            Image.fromarray(array).save(root / f"{kind}/{name}.png")
    (root / "classes.txt").write_text("\n".join(CLASSES))
    return root


def train_config(data, work_dir, model):
    """One iteration of mmseg's own loop, then validation with its own metric."""
    load = [dict(type="mmcv.LoadImageFromFile"), dict(type="ovseg.LoadLabels", num_classes=3)]
    pack = [dict(type="mmseg.PackSegInputs")]
    crop = [dict(type="mmseg.RandomCrop", crop_size=(64, 64)), dict(type="mmcv.RandomFlip", prob=0.5)]
    sets = dict(type="ovseg.FolderDataset", data_root=str(data))
    loader = dict(num_workers=0, persistent_workers=False)
    return Config(
        dict(
            default_scope="mmseg",
            custom_imports=dict(imports=["ovseg.models"]),
            model=model,
            work_dir=str(work_dir),
            train_dataloader=dict(
                batch_size=2, dataset=dict(**sets, pipeline=[*load, *crop, *pack]),
                sampler=dict(type="InfiniteSampler"), **loader,
            ),
            val_dataloader=dict(
                batch_size=1, dataset=dict(**sets, pipeline=[*load, *pack], indices=2),
                sampler=dict(type="DefaultSampler", shuffle=False), **loader,
            ),
            val_evaluator=dict(type="mmseg.IoUMetric"),
            train_cfg=dict(type="IterBasedTrainLoop", max_iters=1, val_interval=1),
            val_cfg=dict(type="ValLoop"),
            optim_wrapper=dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-3)),
            default_hooks=dict(logger=dict(type="LoggerHook", interval=1)),
            log_level="WARNING",
        )
    )  # fmt: skip


@pytest.mark.parametrize("name", MODELS_UNDER_TEST)
def test_trains_and_predicts_in_mmseg(name, data, tmp_path):
    from mmengine.runner import Runner

    model = {
        "type": "mmseg.EncoderDecoder", "data_preprocessor": PREPROCESSOR, **MODELS_UNDER_TEST[name],
        "train_cfg": {}, "test_cfg": {"mode": "whole"},
    }  # fmt: skip
    runner = Runner.from_cfg(train_config(data, tmp_path, model))
    before = {key: value.clone() for key, value in runner.model.state_dict().items()}
    runner.train()
    changed = [key for key, value in runner.model.state_dict().items() if not torch.equal(value, before[key])]
    assert changed
    if "clip_vit_similarity" not in name:
        assert any(key.startswith("decode_head") for key in changed)
    batch = runner.val_dataloader.dataset[0]
    (out,) = runner.model.test_step({key: [value] for key, value in batch.items()})
    assert out.pred_sem_seg.data.shape == (1, 70, 90)
    assert runner.message_hub.get_scalar("val/mIoU").current() >= 0


@pytest.mark.parametrize("tower", [VIT, RESNET], ids=["vit", "resnet"])
def test_segmentor_trains_and_predicts(tower, data, tmp_path):
    from mmengine.runner import Runner

    model = {
        "type": "ovseg.OpenVocabularySegmentor", "method": "maskclip", "tower": tower, "classes": CLASSES,
        "templates": "imagenet7",
    }  # fmt: skip
    runner = Runner.from_cfg(train_config(data, tmp_path, model))
    text = runner.model.segmenter.clip.text.text_projection.clone()
    visual = next(runner.model.segmenter.clip.visual.parameters()).clone()
    runner.train()
    assert torch.equal(runner.model.segmenter.clip.text.text_projection, text)
    assert not torch.equal(next(runner.model.segmenter.clip.visual.parameters()), visual)


def test_segmentor_scores_as_the_predictor():
    """Whole image, no resizing: the logits are the predictor's scores, upsampled and scaled."""
    from ovseg import build
    from ovseg.vocab.text_bank import encode_vocabulary
    from ovseg.vocab.vocabulary import Vocabulary

    torch.manual_seed(0)
    clip = open_clip_source(VIT)
    model = OpenVocabularySegmentor("maskclip", clip, CLASSES, templates="imagenet7").eval()
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        logits = model.encode_decode(image)
        bank = encode_vocabulary(clip.model, clip.tokenizer, Vocabulary.of(CLASSES), "imagenet7")
        scores = build("maskclip", clip, device="cpu").model(image, bank) * clip.model.logit_scale.exp()
    by_class = torch.stack([scores[:, 0], scores[:, 1:3].amax(1), scores[:, 3]], dim=1)
    expected = torch.nn.functional.interpolate(by_class, (64, 96), mode="bilinear", align_corners=False)
    assert torch.allclose(logits, expected, atol=1e-5)


def test_batch_without_labels_has_a_loss(data):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    model = OpenVocabularySegmentor("maskclip", VIT, CLASSES, templates="imagenet7")
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.full((1, 64, 64), 255)))
    assert model.loss(torch.randn(1, 3, 64, 64), [sample])["loss_ce"] == 0


def test_vit_outputs_are_the_blocks(tmp_path):
    torch.manual_seed(0)
    clip = open_clip_source(VIT)
    image = torch.randn(1, 3, 80, 64)
    plain = CLIPViT(clip, out_blocks=(1, -1), strides=None)(image)
    x = clip.model.visual.embed(image)
    for i, block in enumerate(clip.model.visual.blocks):
        x = block(x)
        if i in (1, 3):
            expected = x[:, 1:].transpose(1, 2).unflatten(2, (5, 4))
            assert torch.allclose(plain[i // 2], expected, atol=1e-5)
    maps = CLIPViT(clip, out_blocks=(0, 1, 2, 3))(image)
    assert [tuple(m.shape[2:]) for m in maps] == [(20, 16), (10, 8), (5, 4), (3, 2)]


def test_vit_dense_output_is_the_methods():
    from ovseg import build

    clip = open_clip_source(VIT)
    image = torch.randn(1, 3, 64, 64)
    *_, dense = CLIPViT(clip, out_blocks=(3,), strides=None, dense="maskclip")(image)
    assert torch.allclose(
        dense, build("maskclip", clip, device="cpu").model.features(image).patches, atol=1e-5
    )


def test_resnet_outputs():
    clip = open_clip_source(RESNET)
    backbone = CLIPResNet(clip, dense=True).train()
    assert not backbone.visual.bn1.training
    maps = backbone(torch.randn(1, 3, 64, 64))
    assert [m.shape[2] for m in maps] == [16, 8, 4, 2, 2]
    expected = clip.model.visual.forward_dense(torch.randn(1, 3, 64, 64)).patches
    assert maps[-1].shape == expected.shape


def test_frozen():
    for backbone in (
        CLIPViT(VIT, out_blocks=(0,), strides=(8,), frozen=True),
        CLIPResNet(RESNET, frozen=True),
    ):
        assert not any(p.requires_grad for p in backbone.parameters())


@pytest.mark.parametrize(
    ("build", "cure"),
    [
        (lambda: CLIPViT(RESNET), "use CLIPResNet"),
        (lambda: CLIPResNet(VIT), "use CLIPViT"),
        (lambda: CLIPViT(VIT, out_blocks=(4,), strides=(4,)), "4 blocks"),
        (lambda: CLIPViT(VIT, out_blocks=(0, 1), strides=(4,)), "one for each"),
        (lambda: SimilarityHead(VIT, CLASSES, 48, project=False), "project=True"),
    ],
)
def test_wrong_parts_name_the_cure(build, cure):
    with pytest.raises(ValueError, match=cure):
        build()


def test_words_travel_with_the_weights():
    """A head for other words of the same number takes the words of the checkpoint."""
    torch.manual_seed(0)
    clip = open_clip_source(VIT)
    one = SimilarityHead(clip, CLASSES, 8, 8, norm_cfg=NORM).eval()
    other = SimilarityHead(clip, ["grass", "cat: kitten | cat", "car"], 8, 8, norm_cfg=NORM).eval()
    maps = [torch.randn(1, 8, 4, 4)]
    assert not torch.allclose(one(maps), other(maps))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(maps), other(maps))


def test_registered():
    for name in ("CLIPViT", "CLIPResNet", "SimilarityHead", "OpenVocabularySegmentor"):
        assert MODELS.get(f"ovseg.{name}") is not None
