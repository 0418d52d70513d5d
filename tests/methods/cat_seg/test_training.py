"""What is trained, how fast, and on which loss."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ovseg.methods.cat_seg.converter import joined, to_published
from ovseg.methods.cat_seg.loss import segmentation_loss
from ovseg.methods.cat_seg.tuning import SplitAttention, parameter_groups, set_trainable

ROOT = Path(__file__).resolve().parents[3]
NAMES = (
    Path(os.environ.get("OVSEG_GOLDEN", ROOT.parent / "shared" / "golden"))
    / "cat_seg"
    / "trainable_names.json"
)


def trained(model):
    return {name for name, p in model.named_parameters() if p.requires_grad and name.startswith("clip.")}


def test_attention_tunes_queries_and_values_of_both_towers(make_model):
    model = make_model()
    before = model.state_dict()
    set_trainable(model, "attention")
    assert trained(model) == {
        f"clip.{tower}.transformer.resblocks.{i}.attn.{part}_proj_weight"
        for tower, depth in (("visual", 3), ("text", 2))
        for i in range(depth)
        for part in "qv"
    }
    assert all(p.requires_grad for name, p in model.named_parameters() if not name.startswith("clip."))
    after = joined(model.state_dict())
    assert set(after) == set(before) and all(torch.equal(after[name], before[name]) for name in before)


def test_splitting_changes_nothing(make_model):
    model, image = make_model(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = model.features(image).patches
        set_trainable(model, "attention")
        assert isinstance(model.clip.visual.blocks[0].attn, SplitAttention)
        torch.testing.assert_close(model.features(image).patches, before)


def test_other_modes(make_model):
    model = make_model(prompts=2)
    set_trainable(model, "prompt")
    assert trained(model) == {f"clip.visual.transformer.resblocks.{i}.attn.prompt" for i in range(3)}
    set_trainable(model, "none")
    assert not trained(model)
    set_trainable(model, "full")
    blocks = {name for name, _ in model.named_parameters() if "resblocks" in name}
    assert trained(model) == blocks
    with pytest.raises(ValueError, match="no prompt tokens; build it with prompts=4"):
        set_trainable(make_model(), "prompt")
    with pytest.raises(ValueError, match="unknown fine-tuning mode 'qv'"):
        set_trainable(model, "qv")


@pytest.mark.skipif(not NAMES.is_file(), reason="the full set of golden vectors is not here")
@pytest.mark.parametrize("mode", ["attention", "full", "prompt", "none"])
def test_names_are_those_of_the_authors_code(mode):
    from ovseg.evaluation.golden.case import Case
    from ovseg.evaluation.golden.cat_seg import _clip, _method
    from ovseg.methods.cat_seg.model import CATSegModel

    expected = set(json.loads(NAMES.read_text())["frozen" if mode == "none" else mode])
    case = Case.read(
        NAMES.parent / ("model_train_step.npz" if mode == "attention" else "model_eval_prompted_B.npz")
    )
    model = CATSegModel(_clip(case), _method(case))
    set_trainable(model, mode)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert set(to_published(trained, (1, 1), 1)) == expected


def test_rates_and_decay(make_model):
    model = make_model()
    set_trainable(model, "full")
    groups = {group["name"]: group for group in parameter_groups(model, lr=1.0, weight_decay=0.1)}
    assert len(groups) == sum(p.requires_grad for p in model.parameters())
    assert groups["clip.visual.transformer.resblocks.0.ln_1.weight"]["lr"] == 0.01
    assert groups["clip.visual.transformer.resblocks.0.ln_1.weight"]["weight_decay"] == 0
    assert groups["clip.text.transformer.resblocks.0.mlp.c_fc.weight"]["weight_decay"] == 0.1
    assert groups["aggregator.decoder.stages.0.norm1.bias"]["weight_decay"] == 0
    assert groups["upsample.0.weight"]["lr"] == 1.0


@pytest.mark.parametrize("ignored", ["skip", "negative"])
def test_loss_is_binary_cross_entropy_of_every_class(ignored, monkeypatch):
    monkeypatch.setattr("ovseg.methods.cat_seg.loss._ELEMENTS", 2 * 20 * 24)  # two classes at a time
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 6, 8, requires_grad=True)
    labels = torch.randint(0, 5, (2, 20, 24)).to(torch.uint8)
    labels[torch.rand(labels.shape) < 0.3] = 255
    full = F.interpolate(logits, (20, 24), mode="bilinear", align_corners=False)
    target = F.one_hot(labels.long(), 256)[..., :5].movedim(-1, 1).float()
    each = F.binary_cross_entropy_with_logits(full, target, reduction="none")
    expected = each.mean() if ignored == "negative" else each.movedim(1, -1)[labels != 255].mean()
    found = segmentation_loss(logits, labels, ignored)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, logits), torch.autograd.grad(expected, logits))


def test_balanced_loss_gives_each_class_of_an_image_one_say():
    labels = torch.tensor([[[0, 0, 0, 1], [0, 0, 0, 255]]])
    logits = torch.randn(1, 2, 2, 4)
    each = F.binary_cross_entropy_with_logits(
        logits, F.one_hot(labels.clamp(max=1), 2).movedim(-1, 1).float(), reduction="none"
    ).mean(dim=1)
    expected = (each[labels == 0].mean() + each[labels == 1].mean()) / 2
    torch.testing.assert_close(segmentation_loss(logits, labels, balanced=True), expected)


def test_nothing_labelled_is_no_loss():
    logits, labels = torch.randn(1, 2, 4, 4, requires_grad=True), torch.full((1, 8, 8), 255)
    assert segmentation_loss(logits, labels, "skip") == 0
    assert segmentation_loss(logits, labels, "negative") > 0


def test_a_few_steps_learn(make_model):
    from ovseg.towers.tokenizer import Tokenizer
    from ovseg.vocab.text_bank import encode_vocabulary
    from ovseg.vocab.vocabulary import Vocabulary

    model = make_model()
    set_trainable(model, "attention")
    model.train()
    optimizer = torch.optim.AdamW(parameter_groups(model, lr=5e-3))
    image, labels = torch.randn(1, 3, 128, 128), torch.zeros(1, 128, 128, dtype=torch.long)
    labels[:, 64:] = 1
    image[:, :, 64:] += 2
    losses = []
    for _ in range(12):
        rows = encode_vocabulary(
            model.clip, Tokenizer(32), Vocabulary.of(["sky", "road"]), "cat_seg_single", average="keep"
        ).rows
        loss = model.loss(image, labels, rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert model.clip.text.transformer.resblocks[0].attn.q_proj_weight.grad.abs().max() > 0
    assert losses[-1] < 0.8 * losses[0]
