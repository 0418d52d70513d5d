"""How well a tower knows the drawings of an artist: single drawings, and objects in scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.datasets.emoji import (
    Drawings,
    EmojiScenes,
    Pose,
    Scene,
    Split,
    TextureBank,
    WordGroup,
    paste,
)
from ovseg.datasets.emoji.randomness import random_state
from ovseg.dense.attention import identity
from ovseg.dense.readout import Readout
from ovseg.towers.clip import CLIP
from ovseg.towers.clip_vit import VisionTransformer

__all__ = ["READOUTS", "EmojiEvaluation", "evaluate_tower", "evaluation_scenes", "ious_of_objects"]

READOUTS: Mapping[str, Any] = {
    "value": Readout(attention=identity, residual="none", mlp=False),
    "maskclip": Readout(attention=identity, residual="own", mlp=True),
}
"""Of ViTs: the bare value path of the last block, and MaskCLIP's reading of it."""

_RESNET_READOUTS: Mapping[str, Any] = {"value": "value"}  # of the attention pool: MaskCLIP's too

_PROMPTS = ("{}", "a {}", "a photo of a {}.", "a drawing of a {}.", "a photo of the {}.")
_PLAIN = 12  # texture that single drawings are shown on
_SEED = 77
_BATCH = 48


@dataclass(frozen=True)
class EmojiEvaluation:
    """What is shown to a tower.

    Attributes:
        split: Whose drawings.
        groups: Which words are drawn; they are also the candidates.
        single_size: Pixels of the images with one drawing.
        scene_size: Pixels of the scenes.
        scenes: Their number.
        readouts: How dense features are read, by name, as the tower's ``forward_dense`` takes it; by
            default ``READOUTS`` for ViTs, and the value path of the pool for ResNets.
    """

    split: Split
    groups: tuple[WordGroup, ...] = ("base", "novel")
    single_size: int = 64
    scene_size: int = 224
    scenes: int = 60
    readouts: Mapping[str, Any] | None = None


@torch.inference_mode()
def evaluate_tower(
    clip: CLIP,
    tokenizer: Callable[[Sequence[str]], Tensor],
    normalise: Callable[[Tensor], Tensor],
    drawings: Drawings,
    what: EmojiEvaluation,
) -> dict[str, float]:
    """Figures of a tower on one artist, in percent.

    ``cls_top1``: single drawings by their image embedding. ``pooled_top1_*``: by dense features averaged in
    the drawing's mask. Both among all words of the groups. ``object_iou_*``: mean IoU of the objects of the
    scenes, each pixel going to the nearest of the scene's words and all textures.

    Args:
        clip: In evaluation mode.
        tokenizer: Texts to ids (B, L).
        normalise: (B, S, S, 3) uint8 images to what the tower takes.
        drawings: All of them.
        what: Split, words, sizes.
    """
    table = drawings.table
    words = table.select(*what.groups)
    vit = isinstance(clip.visual, VisionTransformer)
    readouts = what.readouts or (READOUTS if vit else _RESNET_READOUTS)
    names = _text_rows(clip, tokenizer, [table.words[i].name for i in words])
    textures = _text_rows(clip, tokenizer, table.textures)
    figures = _singles(clip, normalise, drawings, what, words, names, readouts)
    rows = {word: names[row] for row, word in enumerate(words)}
    ious: dict[str, list[float]] = {key: [] for key in readouts}
    for scene in evaluation_scenes(drawings, what):
        text = torch.cat([torch.stack([rows[word] for word in scene.words]), textures])
        image = normalise(torch.from_numpy(scene.image)[None])
        for key, readout in readouts.items():
            ious[key] += _object_ious(scene, clip.visual.forward_dense(image, readout).patches, text)
    figures.update({f"object_iou_{key}": 100 * float(np.mean(values)) for key, values in ious.items()})
    return figures


def evaluation_scenes(drawings: Drawings, what: EmojiEvaluation) -> EmojiScenes:
    """The scenes of an evaluation, always the same ones."""
    return EmojiScenes(
        what.split, what.groups, size=what.scene_size, length=what.scenes, seed=_SEED, drawings=drawings
    )


def _text_rows(clip: CLIP, tokenizer: Callable[[Sequence[str]], Tensor], words: Sequence[str]) -> Tensor:
    """(Q, C) unit embeddings, averaged over a few prompts."""
    rows = [F.normalize(clip.encode_text(tokenizer([p.format(w) for w in words])), dim=-1) for p in _PROMPTS]
    return F.normalize(torch.stack(rows).mean(0), dim=-1)


def _singles(
    clip: CLIP,
    normalise: Callable[[Tensor], Tensor],
    drawings: Drawings,
    what: EmojiEvaluation,
    words: Sequence[int],
    names: Tensor,
    readouts: Mapping[str, Any],
) -> dict[str, float]:
    hits: dict[str, list[float]] = {"cls_top1": [], **{f"pooled_top1_{key}": [] for key in readouts}}
    stride = clip.visual.stride
    for image, mask, target in _single_batches(drawings, what, words):
        x = normalise(image)
        found = {"cls_top1": clip.encode_image(x)}
        share = F.avg_pool2d(mask[:, None], stride)  # (B, 1, h, w)
        for key, readout in readouts.items():
            patches = clip.visual.forward_dense(x, readout).patches
            found[f"pooled_top1_{key}"] = (patches * share).sum((2, 3))
        for key, feature in found.items():
            hits[key] += ((feature @ names.T).argmax(1) == target).float().tolist()
    return {key: 100 * float(np.mean(values)) for key, values in hits.items()}


def _single_batches(
    drawings: Drawings, what: EmojiEvaluation, words: Sequence[int]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(images (B, S, S, 3), masks (B, S, S), rows of the words (B,)): each drawing upright, three quarters
    of the image wide, on a plain background."""
    size = what.single_size
    textures = TextureBank(_SEED, variants=16)
    chosen = drawings.select(what.split, words)
    todo = [(row, i) for row, word in enumerate(words) for i in chosen.get(word, ())]
    for start in range(0, len(todo), _BATCH):
        images, masks, rows = [], [], []
        for row, i in todo[start : start + _BATCH]:
            images.append(textures.cut(_PLAIN, size, random_state(_SEED, i)).copy())
            masks.append(np.zeros((size, size), np.uint8))
            rows.append(row)
            pose = Pose(size / 2, size / 2, 0.75 * size, 0.75 * size)
            paste(images[-1], masks[-1], drawings.level_for(pose.width)[i], pose, 1)
        image, mask = torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(masks)).float()
        yield image, mask, torch.tensor(rows)


def _object_ious(scene: Scene, patches: Tensor, text: Tensor) -> list[float]:
    """IoU of each object of a scene, for dense features (1, C, h, w) and its words before the textures."""
    scores = torch.einsum("bchw,qc->bqhw", F.normalize(patches, dim=1), text)
    full = F.interpolate(scores, scene.instances.shape, mode="bilinear", align_corners=False)
    return ious_of_objects(scene, full.argmax(1)[0].numpy())


def ious_of_objects(scene: Scene, labels: np.ndarray) -> list[float]:
    """IoU, 0 to 1, of each object of a scene.

    Args:
        scene: With K objects.
        labels: (H, W) index into the scene's words, or anything from K on.
    """
    ious = []
    for number in range(1, len(scene.words) + 1):
        truth, found = scene.instances == number, labels == number - 1
        ious.append(float((truth & found).sum() / max(1, (truth | found).sum())))
    return ious
