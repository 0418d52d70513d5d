"""From files and words to results: what a user holds. It knows files and units; the model knows tensors."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from ovseg.dense.features import DenseFeatures
from ovseg.dense.view import View
from ovseg.inference.decision import decide
from ovseg.inference.detection import (
    SEGMENTS,
    ProposalSource,
    own_proposals,
    region_objects,
    segment_objects,
    view_regions,
)
from ovseg.inference.images import ImageSource, read_image
from ovseg.inference.plan import Plan, Planner
from ovseg.inference.protocol import Protocol
from ovseg.inference.results import DetResult, Failure, SegResult
from ovseg.inference.sources import run
from ovseg.inference.steps import Pamr
from ovseg.inference.video import Smoother, VideoStream
from ovseg.inference.video_source import Clip, open_video
from ovseg.inference.viewer import Viewer
from ovseg.regions.proposals import Proposals
from ovseg.release import Recipe, write_release
from ovseg.towers.weights import LoadedClip
from ovseg.vocab.bank_file import SavedBank, as_bank
from ovseg.vocab.vocabulary import Vocabulary, VocabularySource

__all__ = ["Predictor"]

_DETECTION_THRESHOLD = 0.3  # of probabilities among all words that compete


class Predictor:
    """Segments images with a model and a vocabulary.

    Args:
        model: A module with ``features(image)`` and ``score_field(view, bank)``, in evaluation mode.
        clip: The weights inside it, for words and normalisation.
        protocol: Settings of inference.
        name: Shown in results.
        batch_size: Windows per forward; by default as many as fit some 4000 tokens.
        dtype: Of the images; that of the model's parameters.
        recipe: How the model was built; ``save`` needs it.

    Attributes:
        model: The plain module.
        name: As given.
        protocol: As given.
    """

    def __init__(
        self,
        model: Any,
        clip: LoadedClip,
        protocol: Protocol,
        *,
        name: str = "",
        batch_size: int | None = None,
        dtype: torch.dtype = torch.float32,
        recipe: Recipe | None = None,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.model = model
        self.name = name
        self.protocol = protocol
        self._clip, self._recipe = clip, recipe
        self._viewer = Viewer(clip.info, model.stride, batch_size, dtype)
        self._planner = Planner(clip, protocol)
        self._vocabulary: Vocabulary | None = None
        self._saved: SavedBank | None = None

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The classes that ``segment`` uses where it is given none."""
        if self._vocabulary is None and self.protocol.words is not None:
            self._vocabulary = Vocabulary.of(self.protocol.words)
        return self._vocabulary

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the whole model as one release file, for ``ovseg.load(path)``.

        Towers, learned parts, method and settings, protocol and vocabulary go in; auxiliary towers are named
        only. The file is safetensors with a JSON header (see ``ovseg.release``).

        Raises:
            ValueError: The predictor was not made by ``ovseg.load`` or ``ovseg.build``.
            WriteError: The file cannot be written.
        """
        if self._recipe is None:
            raise ValueError("how this model was built is not known; make it with ovseg.load or ovseg.build")
        protocol = replace(self.protocol, templates=self._planner.templates)
        return write_release(path, self.model, self._recipe, self._clip, protocol, self._vocabulary)

    def set_vocabulary(self, classes: VocabularySource, templates: str | Sequence[str] | None = None) -> None:
        """Sets the classes for the calls that follow, and encodes their words.

        Args:
            classes: See ``Vocabulary.of``. Of a text bank the text tower encodes nothing.
            templates: Name of a template set, or prompts with a ``{}`` each; by default the protocol's, or
                those of the bank.

        Raises:
            ValueError: The classes or the templates are wrong, or the bank is of another text tower.
        """
        self._saved = as_bank(classes)
        self._vocabulary = Vocabulary.of(self._saved or classes)
        self._planner.choose(templates, self._saved)
        self._plan(None, None)

    def bank(self, classes: VocabularySource | None = None) -> SavedBank:
        """Embeddings of classes: ``predictor.bank(["cow"]).save("cow.safetensors")``.

        The bank, or the path of its file, can stand for the classes wherever the weights are the same.

        Raises:
            ValueError: No classes are known, or they are wrong.
        """
        return self._planner.save(self._known(classes))

    @overload
    def segment(  # type: ignore[overload-overlap]  # a path is a string, which is iterable
        self,
        source: ImageSource,
        classes: VocabularySource | None = ...,
        *,
        background: str | None = ...,
        keep_image: bool = ...,
        class_scores: bool = ...,
        detail: float = ...,
    ) -> SegResult: ...

    @overload
    def segment(
        self,
        source: Iterable[ImageSource],
        classes: VocabularySource | None = ...,
        *,
        background: str | None = ...,
        keep_image: bool = ...,
        class_scores: bool = ...,
        detail: float = ...,
    ) -> Iterator[SegResult | Failure]: ...

    def segment(
        self,
        source: ImageSource | Iterable[ImageSource],
        classes: VocabularySource | None = None,
        *,
        background: str | None = None,
        keep_image: bool = True,
        class_scores: bool = False,
        detail: float = 1.0,
    ) -> SegResult | Iterator[SegResult | Failure]:
        """Segments one image, or a stream of images.

        Args:
            source: An image: a path, the bytes of a file, an open file, a PIL image, an array (H, W, 3) or a
                tensor (see ``read_image``). Or any other iterable of images.
            classes: See ``Vocabulary.of``; by default those of ``set_vocabulary``.
            background: What becomes of pixels that are none of the classes: ``words`` (common things and
                stuff compete), ``floor=P`` or ``margin=M`` (unsure pixels are unlabelled), ``none``. By
                default the protocol's rule, which is ``words`` for users' own classes.
            keep_image: Keep the decoded image in the result, to draw on.
            class_scores: Keep the scores of all classes, K * H * W numbers.
            detail: For large images with small things: they are seen this many times larger (as far as they
                have the pixels), in overlapping windows whose weights taper. Time grows with its square.

        Returns:
            One result; or, for an iterable, an iterator of results in order, in which an image that fails is
            a ``Failure`` (falsy) and the others go on.

        Raises:
            ValueError: No classes are known, an argument is wrong, or (one image) it cannot be read.
        """
        plan = self._plan(classes, background)
        self.protocol.detailed(detail, self.model.stride)  # a wrong one shows before the first image

        def one(image: np.ndarray, name: str | None) -> SegResult:
            return self._segment(image, name, plan, keep_image, class_scores, detail=detail)

        return run(source, one)

    @overload
    def detect(  # type: ignore[overload-overlap]
        self,
        source: ImageSource,
        classes: VocabularySource | None = ...,
        *,
        proposals: ProposalSource | None = ...,
        background: str | None = ...,
        threshold: float = ...,
        keep_image: bool = ...,
    ) -> DetResult: ...

    @overload
    def detect(
        self,
        source: Iterable[ImageSource],
        classes: VocabularySource | None = ...,
        *,
        proposals: ProposalSource | None = ...,
        background: str | None = ...,
        threshold: float = ...,
        keep_image: bool = ...,
    ) -> Iterator[DetResult | Failure]: ...

    def detect(
        self,
        source: ImageSource | Iterable[ImageSource],
        classes: VocabularySource | None = None,
        *,
        proposals: ProposalSource | None = None,
        background: str | None = None,
        threshold: float = _DETECTION_THRESHOLD,
        keep_image: bool = True,
    ) -> DetResult | Iterator[DetResult | Failure]:
        """Finds objects in one image, or in a stream of images.

        Args:
            source: See ``segment``.
            classes: See ``segment``.
            proposals: Where objects may be, see ``ProposalSource``; by default ``own`` for a detector with a
                localiser, ``segments`` for all others.
            background: ``words`` (common things and stuff compete) or ``none``; see ``segment``.
            threshold: Least score, 0 to 1: the probability of the class among all words that compete.
            keep_image: Keep the decoded image in the result, to draw on.

        Returns:
            One result, or an iterator, as from ``segment``. One label for each place.

        Raises:
            ValueError: No classes are known, an argument is wrong, or (one image) it cannot be read.
        """
        plan = self._plan(classes, background)

        def one(image: np.ndarray, name: str | None) -> DetResult:
            return self._detect(image, name, plan, proposals, threshold, keep_image)

        return run(source, one)

    def classify(
        self,
        source: ImageSource,
        boxes: ProposalSource,
        classes: VocabularySource | None = None,
        *,
        background: str | None = "none",
    ) -> np.ndarray:
        """Probabilities (N, K) float32 of the classes in given boxes of one image.

        Args:
            source: See ``segment``.
            boxes: An array (N, 4) XYXY in pixels of the image, or other boxes that ``detect`` takes.
            classes: See ``segment``.
            background: As for ``detect``; 0 in all classes where a background word is the best.

        Raises:
            ValueError: As for ``detect``.
        """
        return self.regions(source, classes, proposals=boxes, background=background)[1]

    def regions(
        self,
        source: ImageSource,
        classes: VocabularySource | None = None,
        *,
        proposals: ProposalSource | None = None,
        background: str | None = "none",
    ) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (N, 4) XYXY in pixels and scores (N, K) of one image, before any is chosen; see ``classify``.

        ``proposals`` may also be None, for the detector's ``own``.
        """
        boxes, scores = self._regions(read_image(source), proposals, self._plan(classes, background))
        return boxes.numpy(), scores.numpy()

    @torch.inference_mode()
    def proposals(self, source: ImageSource) -> Proposals:
        """What the detector's own localiser finds in one image, in its pixels."""
        return own_proposals(self.model, self._view(read_image(source), whole=True))

    def video(
        self,
        source: str | os.PathLike[str] | int,
        classes: VocabularySource | None = None,
        *,
        background: str | None = None,
        clip: Clip | None = None,
        smoothing: float = 0.0,
        detail: float = 1.0,
    ) -> VideoStream:
        """Segments a video, frame by frame, while the next frames are decoded.

        Args:
            source: A file, a folder of frames, or the index of a camera.
            classes: See ``segment``.
            background: See ``segment``.
            clip: Start, end, stride; all frames by default.
            smoothing: Share of the past in the scores, 0 to below 1; it ends where the scene changes.
            detail: See ``segment``.

        Returns:
            An iterable of ``VideoFrame`` (result, time, index). ``source.broken`` of it counts the frames
            that could not be decoded; they are left out.

        Raises:
            ValueError: No classes are known, an argument is wrong, or the video cannot be read.
            ImportError: The extra ``video`` is not installed.
        """
        plan, smoother = self._plan(classes, background), Smoother(smoothing)
        self.protocol.detailed(detail, self.model.stride)  # a wrong one shows before the first frame
        opened = open_video(source, clip)
        return VideoStream(opened, lambda i, n: self._segment(i, n, plan, True, False, smoother, detail))

    @torch.inference_mode()
    def features(self, source: ImageSource) -> DenseFeatures:
        """Dense features of a whole image at the protocol's size, as one window; (1, C, h, w) and on."""
        view = self._view(read_image(source), whole=True)
        return self.model.features(next(view.batches()))

    @torch.inference_mode()
    def _segment(
        self,
        image: np.ndarray,
        name: str | None,
        plan: Plan,
        keep_image: bool,
        class_scores: bool,
        smoother: Smoother | None = None,
        detail: float = 1.0,
    ) -> SegResult:
        start = time.perf_counter()
        view = self._view(image, detail=detail)
        field = self.model.score_field(view, plan.bank)
        if smoother is not None:
            field = smoother(field, image)
        guided = any(isinstance(step, Pamr) for step in plan.steps)
        guide = self._viewer.guide(view, image) if guided else None
        labels = decide(field, plan.steps, plan.bank.vocabulary, guide, class_scores)
        kept, seconds = image if keep_image else None, time.perf_counter() - start
        return plan.result(labels, self.protocol.name, name, kept, seconds)

    @torch.inference_mode()
    def _detect(
        self,
        image: np.ndarray,
        name: str | None,
        plan: Plan,
        proposals: ProposalSource | None,
        threshold: float,
        keep_image: bool,
    ) -> DetResult:
        start = time.perf_counter()
        size = (image.shape[0], image.shape[1])
        if proposals is None and getattr(self.model, "localiser", None) is None:
            proposals = SEGMENTS
        if isinstance(proposals, str) and proposals == SEGMENTS:
            seen = self._view(image, whole=True).image.shape[1:]
            cell = self.model.stride * (size[0] * size[1] / (seen[0] * seen[1])) ** 0.5
            found = segment_objects(self._segment(image, name, plan, False, False), threshold, 2 * cell)
        else:
            found = region_objects(*self._regions(image, proposals, plan), size, threshold)
        kept, seconds = image if keep_image else None, time.perf_counter() - start
        rest = (plan.vocabulary, size, found.masks, self.protocol.name, name, kept, seconds)
        return DetResult(found.boxes, found.scores, found.labels, *rest)

    @torch.inference_mode()
    def _regions(self, image: np.ndarray, source: ProposalSource | None, plan: Plan) -> tuple[Tensor, Tensor]:
        """Boxes (N, 4) in pixels of the image and scores (N, K), on the CPU."""
        view = self._view(image, whole=True)
        found = view_regions(self.model, self._clip.model, view, source, plan.bank, plan.kept)
        return found[0].float().cpu(), found[1].float().cpu()

    def _view(self, image: np.ndarray, whole: bool = False, detail: float = 1.0) -> View:
        return self._viewer(image, self.protocol, self._clip.model.logit_scale.device, whole, detail)

    def _plan(self, classes: VocabularySource | None, background: str | None) -> Plan:
        saved = self._saved if classes is None else as_bank(classes)
        return self._planner.plan(self._known(saved or classes), background, saved)

    def _known(self, classes: VocabularySource | None) -> Vocabulary:
        vocabulary = self.vocabulary if classes is None else Vocabulary.of(classes)
        if vocabulary is None:
            raise ValueError("no classes: pass classes=['road', 'car'], or call set_vocabulary first")
        return vocabulary
