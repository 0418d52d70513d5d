"""RegionCLIP as its authors run it in detectron2 (microsoft/RegionCLIP): zero-shot, fine-tuned, training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.evaluation.golden.case import Case
from ovseg.regions.boxes import decode_boxes
from ovseg.regions.classify import region_logits
from ovseg.regions.converters import RegionCLIPWeights, convert_region_clip
from ovseg.regions.embed import embed_by_pool, region_maps
from ovseg.regions.losses import focal_cross_entropy, region_box_loss, weighted_cross_entropy
from ovseg.regions.proposals import Proposals
from ovseg.regions.region_clip import (
    BOX_WEIGHTS,
    RegionRules,
    detect_regions,
    freeze_for_regions,
    fused_scores,
    match_regions,
    pad_batch,
    pretraining_outputs,
)
from ovseg.regions.select import Detections, Selection
from ovseg.towers.clip_resnet import ModifiedResNet, ResNetConfig
from ovseg.towers.layers import BlockConfig
from ovseg.towers.table import OPENAI_MEAN, OPENAI_STD
from ovseg.towers.text import TextConfig, TextTransformer

__all__ = ["outputs"]

_SHOWN = 3  # regions of which the cases hold the maps


def outputs(case: Case) -> dict[str, Tensor]:
    """Every quantity of the three kinds of cases: inference, a step of fine-tuning, a step of pretraining."""
    weights = convert_region_clip({k[3:]: case.tensor(k) for k in case.arrays if k.startswith("sd/")})
    if weights.teacher:
        computed = _pretraining(case, weights)
    else:
        model = _Model(_tower(weights.visual, case.hp["bb"]), weights)
        training = case.hp["mode"] == "train"
        computed = _fine_tuning(case, model) if training else _inference(case, model)
    return {name: value.detach() for name, value in computed.items()}


@dataclass(frozen=True)
class _Model:
    tower: ModifiedResNet
    weights: RegionCLIPWeights

    def rows(self) -> Tensor:
        rows = self.weights.rows if self.weights.test_rows is None else self.weights.test_rows
        assert rows is not None
        return F.pad(F.normalize(rows, dim=1), (0, 0, 0, 1))

    def deltas(self, regions: Tensor) -> Tensor:
        return F.linear(regions, self.weights.regressor["weight"], self.weights.regressor["bias"])


def _tower(weights: Mapping[str, Tensor], hp: Mapping[str, Any]) -> ModifiedResNet:
    size = hp["pool"] * 16  # RoIAlign cuts maps twice as fine as the pool's grid of stride 32
    tower = ModifiedResNet(ResNetConfig(tuple(hp["layers"]), hp["width"], hp["heads"], size, hp["embed"]))
    tower.load_state_dict(weights)
    return tower.eval()


def _batch(case: Case) -> Tensor:
    mean, std = (torch.tensor(v)[:, None, None] for v in (OPENAI_MEAN, OPENAI_STD))
    images = [case.tensor(f"image{i}").float() / 255 for i in range(len(case.hp["sizes"]))]
    return pad_batch([(image - mean) / std for image in images])


def _listed(case: Case, key: str) -> list[Tensor]:
    return [case.tensor(f"{key}{i}") for i in range(len(case.hp["sizes"]))]


def _inference(case: Case, model: _Model) -> dict[str, Tensor]:
    hp, batch, boxes = case.hp, _batch(case), _listed(case, "boxes")
    maps = model.tower.stage3(batch)
    cut = region_maps(maps, boxes, hp["bb"]["pool"], 16)
    regions = embed_by_pool(model.tower, maps, boxes)
    logits, deltas = region_logits(regions, model.rows(), 1 / hp["temp"]), model.deltas(regions)
    rule, objectness = ("raw_logit" if hp["mult"] else None), torch.cat(_listed(case, "objectness"))
    joined = torch.cat(boxes)
    out = {
        "res4": maps,
        "roi_pooled": cut[:_SHOWN],
        "roi_res5": model.tower.layer4(cut[:_SHOWN]),
        "region_embed": regions,
        "class_logits": logits,
        "box_deltas": deltas,
        "probs": logits.softmax(dim=1),
        "decoded_boxes": joined if hp["no_delta"] else decode_boxes(joined, deltas, BOX_WEIGHTS),
        "fused_scores": fused_scores(logits, objectness, rule),  # type: ignore[arg-type]
        "clip_input_mean": batch.mean(dim=(2, 3)),
    }
    rules = RegionRules(rule, Selection(hp["thr"], limit=hp["topk"]))  # type: ignore[arg-type]
    start = 0
    for i, (size, target) in enumerate(zip(hp["sizes"], hp["out"])):
        part = slice(start, start + len(boxes[i]))
        start = part.stop
        moved = None if hp["no_delta"] else deltas[part]
        proposals = Proposals(boxes[i], objectness[part])
        found = detect_regions(logits[part], proposals, moved, tuple(size), tuple(target), rules)
        out |= _in_their_order(case, i, found)
    return out


def _in_their_order(case: Case, image: int, found: Detections) -> dict[str, Tensor]:
    """Detections as a set: those whose scores are nearly equal may stand in another order."""
    order = torch.arange(len(found.labels))
    theirs, labels = case.tensor(f"det_boxes{image}"), case.tensor(f"det_classes{image}")
    if found.boxes.shape == theirs.shape and len(labels):
        apart = (theirs[:, None] - found.boxes).abs().amax(dim=2)
        nearest = apart.masked_fill(labels[:, None] != found.labels, torch.inf).argmin(dim=1)
        if len(nearest.unique()) == len(
            nearest
        ):  # else something is missing, and the comparison shall say so
            order = nearest
    return {
        f"det_boxes{image}": found.boxes[order],
        f"det_scores{image}": found.scores[order],
        f"det_classes{image}": found.labels[order],
    }


@torch.enable_grad()
def _fine_tuning(case: Case, model: _Model) -> dict[str, Tensor]:
    hp, batch, classes = case.hp, _batch(case), case.hp["K"]
    freeze_for_regions(model.tower)
    for value in model.weights.regressor.values():
        value.requires_grad_()
    truth, truth_labels = _listed(case, "gt_boxes"), _listed(case, "gt_classes")
    boxes = [torch.cat(pair) for pair in zip(_listed(case, "boxes"), truth)]
    maps = model.tower.stage3(batch)
    regions = embed_by_pool(model.tower, maps, boxes)
    logits, deltas = region_logits(regions, model.rows(), 1 / hp["temp"]), model.deltas(regions)
    matched = [match_regions(b, t, y, classes) for b, t, y in zip(boxes, truth, truth_labels)]
    labels, targets = (torch.cat(part) for part in zip(*matched))
    losses = {
        "loss_cls": _class_loss(logits, labels, hp),
        "loss_box_reg": region_box_loss(deltas, targets, labels < classes),
    }
    regressor = "roi_heads.box_predictor.bbox_pred."
    named: dict[str, Tensor] = {f"backbone.{name}": p for name, p in model.tower.named_parameters()}
    named |= {regressor + name: p for name, p in model.weights.regressor.items()}
    return {
        "res4": maps,
        "region_embed": regions,
        "class_logits": logits,
        "box_deltas": deltas,
        "clip_input_mean": batch.mean(dim=(2, 3)),
        **losses,
        **_gradients(case, named, losses),
    }


def _class_loss(logits: Tensor, labels: Tensor, hp: Mapping[str, Any]) -> Tensor:
    weight = 1.0 if hp.get("bg") is None else hp["bg"]
    if hp.get("focal") is None:
        return weighted_cross_entropy(logits, labels, weight)
    return focal_cross_entropy(logits, labels, gamma=hp["focal"], background_weight=weight)


@torch.enable_grad()
def _pretraining(case: Case, weights: RegionCLIPWeights) -> dict[str, Tensor]:
    hp, own = case.hp, "teacher_concept_emb"
    student, teacher = _tower(weights.visual, hp["student"]), _tower(weights.teacher, hp["teacher"])
    freeze_for_regions(student)
    with torch.no_grad():
        captions = _text(weights.text, hp)(torch.stack(_listed(case, "tokens")))
    step = pretraining_outputs(
        student,
        teacher,
        _batch(case),
        _listed(case, "boxes"),
        case.tensor("concept_emb"),
        captions,
        teacher_concepts=case.tensor(own) if own in case.arrays else None,
        temperature=hp["temp"],
        threshold=hp["thres"],
    )
    named = {f"backbone.{name}": p for name, p in student.named_parameters()}
    return {
        "region_feats": step.regions,
        "global_feats": step.images,
        "teacher_concept_scores_kept": step.teacher,
        "target_inds": step.concepts,
        "keep_regions": step.kept,
        "label_mtx": (step.concepts[:, None] == step.concepts).float(),
        "text_embs": captions,
        **step.losses,
        **_gradients(case, named, step.losses),
    }


def _text(weights: Mapping[str, Tensor], hp: Mapping[str, Any]) -> TextTransformer:
    width, heads, layers = hp["text"]
    vocabulary, length = len(weights["token_embedding.weight"]), len(weights["positional_embedding"])
    blocks = BlockConfig(width, layers, heads, 4 * width, "quick_gelu")
    tower = TextTransformer(TextConfig(blocks, vocabulary, length, weights["text_projection"].shape[1]))
    tower.load_state_dict(weights)
    return tower


def _gradients(case: Case, named: Mapping[str, Tensor], losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    trained = {name: p for name, p in named.items() if p.requires_grad}
    values = torch.autograd.grad(torch.stack(list(losses.values())).sum(), list(trained.values()))
    gradients = dict(zip(trained, values))
    norms = torch.stack([gradients[name].norm() for name in case.meta["info"]["grad_norm_names"]])
    full = {f"grad/{name}": value for name, value in gradients.items()}
    return {"grad_norms": norms, "grad_norm_total": torch.stack([g.norm() for g in values]).norm(), **full}
