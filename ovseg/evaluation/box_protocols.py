"""By which rules detections are chosen, and which published figures stand beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ovseg.evaluation.box_sets import BoxSet
from ovseg.regions.fuse import ObjectnessRule
from ovseg.regions.select import Selection

__all__ = ["BoxProtocol", "box_protocol"]


@dataclass(frozen=True)
class BoxProtocol:
    """Rules of a model on a data set.

    Attributes:
        selection: Threshold, suppression, number.
        objectness: How the proposals' own score enters.
        localiser: Stem of the file whose proposals the figures were published with.
        paper: Published AP50 in percent by group.
    """

    selection: Selection
    objectness: ObjectnessRule = "sigmoid"
    localiser: str | None = None
    paper: Mapping[str, float] = field(default_factory=dict)

    def published(self, localiser: str) -> Mapping[str, float]:
        """``paper``, for proposals from the file of that stem; else nothing."""
        return self.paper if localiser == self.localiser else {}


# Fine-tuned RegionCLIP is tested with soft-NMS, and on LVIS with the RPN's logit in the score.
_COCO = Selection(threshold=1e-3, limit=100, soft_sigma=0.5)
_LVIS = Selection(threshold=0.02, limit=300, soft_sigma=0.5)
_FINE_TUNED: Mapping[tuple[str, str], BoxProtocol] = {
    ("region_clip_rn50.ov_coco", "ov_coco"): BoxProtocol(
        _COCO, localiser="rpn_coco_48", paper={"novel": 31.4, "all": 50.4}
    ),
    ("region_clip_rn50x4.ov_coco", "ov_coco"): BoxProtocol(
        _COCO, localiser="rpn_coco_48", paper={"novel": 39.3}
    ),
    ("region_clip_rn50.ov_lvis", "ov_lvis"): BoxProtocol(_LVIS, "raw_logit"),
    ("region_clip_rn50x4.ov_lvis", "ov_lvis"): BoxProtocol(_LVIS, "raw_logit"),
}


def box_protocol(model: str, data: BoxSet, objectness: ObjectnessRule | None = None) -> BoxProtocol:
    """The rules of a model for a data set: those of its paper, or plain ones.

    Args:
        model: Name in the zoo.
        data: What it is evaluated on.
        objectness: In place of the rule of the protocol; then nothing is published.
    """
    plain = BoxProtocol(Selection(threshold=data.threshold, limit=data.limit))
    found = _FINE_TUNED.get((model, data.name), plain)
    return found if objectness is None else replace(found, objectness=objectness, paper={})
