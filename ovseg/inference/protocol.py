"""How images are fed to a method and its scores turned into labels: what a published number depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from ovseg.dense.windows import Pad
from ovseg.inference.steps import Step

if TYPE_CHECKING:
    import numpy as np

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Protocol", "Resize"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Resize:
    """Resizing, rounded as mmcv rounds.

    Attributes:
        short: Pixels of the short side.
        long: Upper bound of the long side in pixels; the short side shrinks with it.
        whole_patches: Round both sides to multiples of the tower's patch, so that no pixel is lost or padded.
        shrink: Filter for shrinking: ``linear`` samples (mmcv's default, published numbers depend on it),
            ``area`` averages, which does not alias. Growing is bilinear. ``bicubic`` and ``bilinear`` are
            Pillow's, which do not alias either, for growing too.
        keep_ratio: Keep the aspect ratio; else both sides become ``short``.
        detail: Both sides are this many times longer, as far as the image has the pixels.
    """

    short: int
    long: int = 2048
    whole_patches: bool = False
    shrink: Literal["linear", "area", "bicubic", "bilinear"] = "linear"
    keep_ratio: bool = True
    detail: float = 1.0

    def size(self, height: int, width: int, patch: int) -> tuple[int, int]:
        """(H, W) after resizing; no side falls below one patch."""
        if not self.keep_ratio:
            return max(self.short, patch), max(self.short, patch)
        scale = min(self.long / max(height, width), self.short / min(height, width))
        if self.detail > 1:
            scale = max(scale, min(scale * self.detail, 1.0))
        sides = (int(height * scale + 0.5), int(width * scale + 0.5))
        if self.whole_patches:
            sides = (round(sides[0] / patch) * patch, round(sides[1] / patch) * patch)
        return max(sides[0], patch), max(sides[1], patch)

    def __call__(self, image: np.ndarray, patch: int) -> np.ndarray:
        """Resizes (H, W, 3) uint8."""
        import cv2
        import numpy as np
        from PIL import Image

        height, width = image.shape[:2]
        size = self.size(height, width, patch)
        if size == (height, width):
            return image
        if self.shrink in ("bicubic", "bilinear"):
            return np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling[self.shrink.upper()]))
        shrinks = size[0] * size[1] < height * width
        method = cv2.INTER_AREA if shrinks and self.shrink == "area" else cv2.INTER_LINEAR
        return cv2.resize(image, size[::-1], interpolation=method)


@dataclass(frozen=True)
class Protocol:
    """Settings of inference.

    Attributes:
        name: E.g. "voc20".
        resize: Applied to every image.
        crop: Side of the windows in pixels; None for the whole image.
        stride: Step between windows in pixels.
        pad: Padding of each window.
        templates: Name of the prompt templates (``ovseg.vocab.templates``), or the templates.
        average: How embeddings of templates become one row (``ovseg.vocab.text_bank``).
        synonyms: Which query words of a class are used: ``all``, or the ``first``.
        words: Name of the shipped word list that is used where the user names no classes.
        steps: The decision.
        background: Default of ``Predictor.segment``'s rule for pixels that are none of the classes. None: the
            steps say all, and background classes are labels like the others.
        normalisation: Mean and deviation of the ``weights``, or of ``imagenet`` (MaskCLIP's code).
        fields: Fields of the method or tower that this protocol sets: quirks that its numbers depend on.
        paper: Published mIoU in percent by tower name.
    """

    name: str
    resize: Resize
    crop: int | None = None
    stride: int | None = None
    pad: Pad | None = None
    templates: str | tuple[str, ...] = "imagenet80"
    average: Literal["norm_mean_norm", "mean", "keep"] = "norm_mean_norm"
    synonyms: Literal["all", "first"] = "all"
    words: str | None = None
    steps: tuple[Step, ...] = ()
    background: str | None = None
    normalisation: Literal["weights", "imagenet"] = "weights"
    fields: Mapping[str, Any] = field(default_factory=dict)
    paper: Mapping[str, float] = field(default_factory=dict)

    def detailed(self, detail: float, patch: int) -> Protocol:
        """For large images with small things: the image stays larger, and is seen in overlapping windows.

        Args:
            detail: 1 changes nothing; see ``Resize``.
            patch: Of the tower, in pixels.

        Raises:
            ValueError: ``detail`` is below 1, or the protocol brings all images to one size.
        """
        if not 1 <= detail < float("inf"):
            raise ValueError(f"detail must be 1 or more, got {detail}")
        if detail == 1:
            return self
        if not self.resize.keep_ratio:
            raise ValueError(f"protocol {self.name!r} brings all images to one size and takes no detail")
        crop = self.crop or max(self.resize.short // patch, 1) * patch
        stride = self.stride if self.crop and self.stride else max(crop // (2 * patch), 1) * patch
        return replace(self, resize=replace(self.resize, detail=detail), crop=crop, stride=stride)
