"""Which patches a patch attends to, in the rewritten attention of a method."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ovseg.dense.attention import inputs_of, uses
from ovseg.dense.readout import AttentionContext, AttentionFunction
from ovseg.inference.predictor import Predictor
from ovseg.methods.segmenter import Segmenter
from ovseg.towers.clip_vit import VisionTransformer

__all__ = ["Explanation", "draw_explanation", "explain"]


@dataclass(frozen=True, eq=False)
class Explanation:
    """Weights of the patches of an image for one of them.

    Attributes:
        weights: (h, w) float32. ``attention``: shares that the patch takes of each patch's value, the mean
            over heads. ``similarity``: cosine of the final features.
        at: (row, column) of the patch.
        kind: ``attention``; ``affinity`` for methods that pool features afterwards: cosine of what they pool
            by; or ``similarity`` where the method's mixing cannot be written as such weights (it depends on
            the values, or changes the grid).
    """

    weights: np.ndarray
    at: tuple[int, int]
    kind: str


@torch.no_grad()
def explain(predictor: Predictor, image: np.ndarray, x: int, y: int) -> Explanation:
    """Explains one place.

    Args:
        predictor: A method on a ViT.
        image: (H, W, 3) uint8 RGB; seen as one window at the protocol's size.
        x: Column in pixels.
        y: Row in pixels.

    Raises:
        ValueError: The place lies outside the image.
    """
    height, width = image.shape[:2]
    if not (0 <= x < width and 0 <= y < height):
        raise ValueError(f"{x},{y} lies outside the image, which has {width} x {height} pixels")
    patches, seen = _features(predictor, image)
    h, w = patches.shape[1:]
    at = (y * h // height, x * w // width)
    weights = None if seen is None else _attention(*seen, at, (h, w))
    if weights is not None:
        return Explanation(weights.cpu().numpy(), at, "attention")
    kind = "affinity" if hasattr(predictor.model, "pooling_guide") else "similarity"
    unit = patches / patches.norm(dim=0, keepdim=True).clamp(min=1e-12)
    cosine = torch.einsum("c,chw->hw", unit[:, at[0], at[1]], unit)
    return Explanation(cosine.cpu().numpy(), at, kind)


def _features(predictor: Predictor, image: np.ndarray) -> tuple[Tensor, tuple[AttentionFunction, Any] | None]:
    """The final features (C, h, w), or those by whose similarity a method pools; the attention function of
    the last block, with its inputs, if any."""
    model = predictor.model
    if hasattr(model, "pooling_guide"):
        with torch.inference_mode():
            return model.pooling_guide(next(predictor._view(image, whole=True).batches()))[0].float(), None
    if type(model) is not Segmenter or not isinstance(model.clip.visual, VisionTransformer):
        return predictor.features(image).patches[0].float(), None
    spy = _Spy(model.readout.attention)
    own, model.readout = model.readout, replace(model.readout, attention=spy.attention)
    try:
        patches = predictor.features(image).patches[0].float()
    finally:
        model.readout = own
    return patches, (own.attention, spy.seen)


def _attention(
    attention: AttentionFunction, seen: Any, at: tuple[int, int], grid: tuple[int, int]
) -> Tensor | None:
    q, k, v, ctx = seen
    if v is None or ctx.grid != grid:
        return None
    token = ctx.prefix + at[0] * grid[1] + at[1]
    shares = _shares(attention, (q, k, v), ctx, token)
    return None if shares is None else shares.mean(dim=0)[ctx.prefix :].view(grid)


@torch.inference_mode(False)
@torch.enable_grad()
def _shares(
    attention: AttentionFunction, parts: tuple[Any, Any, Tensor], ctx: AttentionContext, token: int
) -> Tensor | None:
    """(heads, N) weights of a token, for a mixing that is linear in the values: its derivative by them."""
    q, k, v = (None if part is None else part.clone() for part in parts)
    assert v is not None  # the caller has seen it
    v.requires_grad_()
    try:
        mixed = attention(q, k, v, ctx)
        if isinstance(mixed, tuple):
            return None
        (slope,) = torch.autograd.grad(mixed[0, :, token, 0].sum(), v)
    except RuntimeError:  # it takes no derivative of what it computes
        return None
    weights = slope[0, :, :, 0].detach()
    linear = torch.einsum("hn,hnd->hd", weights, v[0].detach())
    return (
        weights.float() if torch.allclose(linear, mixed[0, :, token].detach(), rtol=1e-3, atol=1e-3) else None
    )


class _Spy:
    """An attention function that remembers what it was given last."""

    def __init__(self, attention: AttentionFunction) -> None:
        self.seen: tuple[Any, Any, Any, Any] = (None, None, None, None)

        @uses(inputs_of(attention))
        def spy(q: Any, k: Any, v: Any, ctx: AttentionContext) -> Any:
            self.seen = (q, k, v, ctx)
            return attention(q, k, v, ctx)

        self.attention = spy


def draw_explanation(image: np.ndarray, explanation: Explanation) -> np.ndarray:
    """The image (H, W, 3) in grey, its patches coloured by their weights, the explained patch framed."""
    import cv2

    height, width = image.shape[:2]
    weights = explanation.weights
    low, high = np.percentile(weights, [2, 99])
    heat = np.clip((weights - low) / max(float(high - low), 1e-12), 0, 1)
    heat = cv2.resize((heat * 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    colours = cv2.applyColorMap(heat, cv2.COLORMAP_INFERNO)[..., ::-1]
    grey = image.mean(axis=2, keepdims=True)
    picture = np.ascontiguousarray((0.35 * grey + 0.65 * colours).astype(np.uint8))
    (row, column), (h, w) = explanation.at, weights.shape
    corner, opposite = (
        (column * width // w, row * height // h),
        ((column + 1) * width // w, (row + 1) * height // h),
    )
    cv2.rectangle(picture, corner, opposite, (64, 255, 128), max(1, round((height * width) ** 0.5 / 300)))
    return picture
