"""The steps of a decision as data: protocols list them, releases store them, ``decide`` runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

__all__ = [
    "STEPS",
    "DropBackground",
    "Floor",
    "Margin",
    "MinMax",
    "Pamr",
    "RegionVote",
    "SamRefine",
    "SmallAreas",
    "Softmax",
    "Step",
    "check_order",
    "step_from_dict",
    "step_to_dict",
]


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        stage: ``scores`` steps change the scores of words, ``compare`` turns them into probabilities,
            ``rule`` steps act on the winning class. Steps stand in this order.
        scope: ``tile``: a pixel needs nothing but its own scores. ``whole``: it needs the whole picture.
    """

    stage: ClassVar[Literal["scores", "compare", "rule"]]
    scope: ClassVar[Literal["tile", "whole"]] = "tile"


@dataclass(frozen=True)
class Pamr(Step):
    """Refines every word's scores along colour edges of the picture (``ovseg.dense.pamr``).

    Attributes:
        iterations: Rounds.
        dilations: Distances of the neighbours in pixels.
    """

    stage = "scores"
    scope = "whole"
    iterations: int = 10
    dilations: tuple[int, ...] = (8, 16)


@dataclass(frozen=True)
class MinMax(Step):
    """Stretches every word's scores over the picture to 0..1 (GEM's heat maps).

    Every word then reaches 1 somewhere: it says where a word is, if it is there. A constant map becomes 0.
    """

    stage = "scores"
    scope = "whole"


@dataclass(frozen=True)
class Softmax(Step):
    """Probabilities: softmax of ``scale`` times the scores; a class has its best word's.

    Attributes:
        scale: Inverse temperature; None for the one that was learned with the weights.
        over: What the probabilities sum to one over: all ``words``, or ``classes`` after the maximum over
            their words (NACLIP).
    """

    stage = "compare"
    scale: float | None = None
    over: Literal["words", "classes"] = "words"


@dataclass(frozen=True)
class SmallAreas(Step):
    """Rules out foreground classes that would cover too little; their pixels go to the next best (SCLIP).

    Attributes:
        share: Largest share of the area of all foreground classes that is still too little, 0 to 1.
    """

    stage = "rule"
    scope = "whole"
    share: float = 0.1


@dataclass(frozen=True)
class Floor(Step):
    """Pixels whose winning score is below ``threshold`` get ``label``.

    Attributes:
        threshold: In the unit of the score: a probability after a softmax.
        label: Class index, or -1 for unlabelled. Protocols with a background class say 0.
    """

    stage = "rule"
    threshold: float
    label: int = -1


@dataclass(frozen=True)
class Margin(Step):
    """Pixels whose best class leads the second by less than ``margin`` get ``label``.

    Attributes:
        margin: In the unit of the score.
        label: Class index, or -1 for unlabelled.
    """

    stage = "rule"
    margin: float
    label: int = -1


@dataclass(frozen=True)
class RegionVote(Step):
    """All pixels of a region take the label that most of them have, the smaller one of two (CLIPtrase).

    The regions come with the scores (``ScoreField.regions``). Pixels of no region (-1) keep their label.
    """

    stage = "rule"
    scope = "whole"


@dataclass(frozen=True)
class SamRefine(Step):
    """Redraws the regions of the label map with SAM's mask decoder (Trident).

    SAM's view of the image comes with the scores (``ScoreField.masks``).

    Attributes:
        coarse: Pixels whose best probability is below it prompt nothing.
        min_area: Regions with fewer pixels, at half the resolution, prompt nothing.
        min_quality: Masks of which SAM expects a smaller IoU are not used.
        mask_weight: Of the class's probabilities as a mask prompt.
        prompt_norm: What the layer norms that embed the mask prompt run over: ``channels``, or ``rows`` of
            the map as in the authors' code, which leaves the batch axis out.
    """

    stage = "rule"
    scope = "whole"
    coarse: float = 0.2
    min_area: int = 225
    min_quality: float = 0.8
    mask_weight: float = 0.005
    prompt_norm: Literal["channels", "rows"] = "channels"


@dataclass(frozen=True)
class DropBackground(Step):
    """Pixels won by a class marked as background get ``label``.

    Attributes:
        label: Class index, or -1 for unlabelled.
    """

    stage = "rule"
    label: int = -1


STEPS: dict[str, type[Step]] = {
    "pamr": Pamr,
    "min_max": MinMax,
    "softmax": Softmax,
    "small_areas": SmallAreas,
    "floor": Floor,
    "margin": Margin,
    "region_vote": RegionVote,
    "sam_refine": SamRefine,
    "drop_background": DropBackground,
}
"""Every step by name: the allow-list of release files."""

_NAMES = {cls: name for name, cls in STEPS.items()}


def step_to_dict(step: Step) -> dict[str, Any]:
    """A step as JSON-ready data, its name under ``step``."""
    return {"step": _NAMES[type(step)], **asdict(step)}


def step_from_dict(data: Mapping[str, Any]) -> Step:
    """Inverse of ``step_to_dict``.

    Raises:
        ValueError: The name or a field is unknown.
    """
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    name = fields.pop("step", None)
    if name not in STEPS:
        raise ValueError(f"unknown decision step {name!r}; one of {', '.join(STEPS)}")
    try:
        return STEPS[name](**fields)
    except TypeError as error:
        raise ValueError(f"decision step {name!r}: {error}") from None


def check_order(steps: Sequence[Step]) -> None:
    """Checks that steps stand in the order of their stages.

    Raises:
        ValueError: They do not, or there are two softmaxes.
    """
    order = ["scores", "compare", "rule"]
    stages = [order.index(step.stage) for step in steps]
    if stages != sorted(stages) or stages.count(1) > 1:
        names = " -> ".join(_NAMES[type(step)] for step in steps)
        raise ValueError(f"steps must be refinements, then at most one softmax, then rules; got {names}")
