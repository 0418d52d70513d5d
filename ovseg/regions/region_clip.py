"""RegionCLIP: Zhong et al., RegionCLIP: Region-based Language-Image Pretraining, CVPR 2022.

What its models do with boxes, as functions of tensors. Training on mmdet's detectors is in
``ovseg.models.detectors``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou

from ovseg.regions.boxes import clip_boxes, decode_boxes, encode_boxes, rescale_boxes
from ovseg.regions.classify import region_logits
from ovseg.regions.embed import embed_by_pool
from ovseg.regions.fuse import ObjectnessRule, fuse, objectness_scores
from ovseg.regions.losses import concept_contrastive_loss, distillation_loss, image_text_loss
from ovseg.regions.proposals import Proposals
from ovseg.regions.select import Detections, Selection, select_detections
from ovseg.regions.vit import CropTeacher, ViTRegions
from ovseg.towers.clip_resnet import ModifiedResNet

__all__ = [
    "BOX_WEIGHTS", "PretrainingOutputs", "RegionRules", "detect_regions", "embed_regions",
    "freeze_for_regions", "match_regions", "pad_batch", "pretraining_outputs", "shared_maps",
    "whole_image_boxes",
]  # fmt: skip

BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Of dx, dy, dw, dh in the box regressor."""


@dataclass(frozen=True)
class RegionRules:
    """How scores of regions become detections.

    Attributes:
        objectness: How the localiser's logits enter: ``raw_logit`` is the published rule (zero-shot with RPN
            boxes, and OV-LVIS), ``sigmoid`` the sound one; None leaves them out (ground truth, OV-COCO).
        selection: Threshold, suppression, number.
    """

    objectness: ObjectnessRule | None = None
    selection: Selection = field(default_factory=Selection)


def pad_batch(images: Sequence[Tensor], divisor: int = 1) -> Tensor:
    """Normalised images (3, H_b, W_b) to one batch (B, 3, H, W), zeros right and below."""
    height, width = (-(-max(image.shape[axis] for image in images) // divisor) * divisor for axis in (-2, -1))
    return torch.stack([F.pad(i, (0, width - i.shape[-1], 0, height - i.shape[-2])) for i in images])


def whole_image_boxes(batch: Tensor) -> list[Tensor]:
    """One box around each padded image of a batch (B, 3, H, W): the region that stands for the image."""
    height, width = batch.shape[-2:]
    return [batch.new_tensor([[0, 0, width, height]]) for _ in batch]


def freeze_for_regions(tower: ModifiedResNet) -> None:
    """Their fine-tuning: stem and first stage are fixed, and so is every batch norm (also its statistics)."""
    tower.eval()
    for part in (tower.conv1, tower.conv2, tower.conv3, tower.layer1):
        part.requires_grad_(False)
    for module in tower.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)


def fused_scores(logits: Tensor, objectness: Tensor | None, rule: ObjectnessRule | None) -> Tensor:
    """Softmax over classes and background, and its geometric mean with the objectness where a rule says so.

    Args:
        logits: (N, K + 1).
        objectness: (N,) logits.
        rule: See ``RegionRules``.

    Raises:
        ValueError: The rule needs objectness and there is none.
    """
    probabilities = logits.softmax(dim=1)
    if rule is None:
        return probabilities
    if objectness is None:
        raise ValueError(f"the rule {rule!r} needs proposals with objectness; these have none")
    return fuse([probabilities, objectness_scores(objectness, rule)], [0.5, 0.5])


def detect_regions(
    logits: Tensor,
    proposals: Proposals,
    deltas: Tensor | None,
    size: tuple[int, int],
    output_size: tuple[int, int],
    rules: RegionRules,
) -> Detections:
    """Detections of one image.

    Args:
        logits: (N, K + 1) of its regions, background last.
        proposals: The N regions.
        deltas: (N, 4) of the box regressor; None keeps the proposals' boxes (zero-shot).
        size: (H, W) of the image that the network saw, without padding.
        output_size: (H, W) of the image in whose pixels the boxes are wanted.
        rules: See ``RegionRules``.
    """
    scores = fused_scores(logits, proposals.logits, rules.objectness)[:, :-1]
    boxes = proposals.boxes if deltas is None else decode_boxes(proposals.boxes, deltas, BOX_WEIGHTS)
    found = select_detections(clip_boxes(boxes, size), scores, rules.selection)
    final = clip_boxes(rescale_boxes(found.boxes, size, output_size), output_size)
    kept = (final[:, 2:] > final[:, :2]).all(dim=1)
    return Detections(final[kept], found.scores[kept], found.labels[kept], found.regions[kept])


def match_regions(
    boxes: Tensor, truth: Tensor, truth_labels: Tensor, classes: int, threshold: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Labels and box targets of regions in training.

    Args:
        boxes: (N, 4).
        truth: (G, 4) ground truth.
        truth_labels: (G,).
        classes: K, the label of background.
        threshold: Least IoU of a foreground region.

    Returns:
        (N,) labels and (N, 4) deltas to the nearest ground truth (zeros for background).
    """
    if not len(truth):
        return truth_labels.new_full((len(boxes),), classes), torch.zeros_like(boxes)
    iou, nearest = box_iou(boxes, truth).max(dim=1)
    foreground = iou >= threshold
    labels = torch.where(foreground, truth_labels[nearest], classes)
    targets = encode_boxes(boxes, truth[nearest], BOX_WEIGHTS)
    return labels, torch.where(foreground[:, None], targets, torch.zeros_like(targets))


def shared_maps(tower: ModifiedResNet | ViTRegions | CropTeacher, batch: Tensor) -> Tensor:
    """What the part of a tower that runs on whole images (B, 3, H, W) makes of them."""
    return tower.stage3(batch) if isinstance(tower, ModifiedResNet) else tower.maps(batch)


def embed_regions(
    tower: ModifiedResNet | ViTRegions | CropTeacher, maps: Tensor, boxes: Sequence[Tensor]
) -> Tensor:
    """What the part that runs on regions makes of boxes, ``maps`` being those of ``shared_maps``: (N, C)."""
    if isinstance(tower, ModifiedResNet):
        return embed_by_pool(tower, maps, boxes)
    return tower.embed(maps, boxes)


@dataclass(frozen=True)
class PretrainingOutputs:
    """What a step of pretraining computes, M of N regions being kept.

    Attributes:
        regions: (N, D) the student's embeddings.
        images: (B, D) the student's embedding of each whole image.
        kept: (N,) bool: the teacher is sure enough.
        teacher: (M, C) its distribution over the concepts.
        concepts: (M,) its best concept.
        losses: The three losses by name; they are summed as they are.
    """

    regions: Tensor
    images: Tensor
    kept: Tensor
    teacher: Tensor
    concepts: Tensor
    losses: dict[str, Tensor]


def pretraining_outputs(
    student: ModifiedResNet | ViTRegions,
    teacher: ModifiedResNet | CropTeacher,
    batch: Tensor,
    boxes: Sequence[Tensor],
    concepts: Tensor,
    captions: Tensor,
    *,
    teacher_concepts: Tensor | None = None,
    temperature: float = 0.01,
    teacher_scale: float = 100.0,
    threshold: float = 0.1,
    maps: Tensor | None = None,
) -> PretrainingOutputs:
    """One step of pretraining (section 3.2).

    Args:
        student: Trained.
        teacher: The frozen CLIP; a ViT sees the regions as crops.
        batch: (B, 3, H, W) normalised, padded.
        boxes: For each image (N_b, 4) proposals.
        concepts: (C, D) text embeddings of the concept pool.
        captions: (B, D) text embeddings of the images' captions.
        teacher_concepts: (C, D') the same pool in the teacher's space, where that is another one.
        temperature: Of the student's softmax.
        teacher_scale: Of the teacher's cosines: one over its temperature, which in the paper is 0.01 always.
        threshold: Regions whose best concept has a smaller probability are left out; if that were all, none.
        maps: What ``shared_maps`` gives for student and batch, where it is known already.
    """
    with torch.no_grad():
        rows = F.normalize(concepts, dim=1)
        teacher_rows = rows if teacher_concepts is None else F.normalize(teacher_concepts, dim=1)
        seen = embed_regions(teacher, shared_maps(teacher, batch), boxes)
        distribution = region_logits(seen, teacher_rows, teacher_scale).softmax(dim=1)
        best, label = distribution.max(dim=1)
        kept = best > threshold
        kept = kept if kept.any() else torch.ones_like(kept)
    maps = shared_maps(student, batch) if maps is None else maps
    regions = embed_regions(student, maps, boxes)
    images = embed_regions(student, maps, whole_image_boxes(batch))
    own, label, distribution = regions[kept], label[kept], distribution[kept]
    losses = {
        "loss_region_distill": distillation_loss(region_logits(own, rows, 1 / temperature), distribution),
        "loss_concept_contrastive": concept_contrastive_loss(own, rows[label], label, temperature),
        "loss_img_txt_level": image_text_loss(images, captions, temperature),
    }
    return PretrainingOutputs(regions, images, kept, distribution, label, losses)
