"""ResCLIP as its authors run it (yvhangyang/ResCLIP), without their casts to half precision."""

from __future__ import annotations

import torch
from torch import Tensor

from ovseg.evaluation.golden.case import Case
from ovseg.methods.resclip import ResCLIP
from ovseg.methods.resclip.feedback import feedback_map
from ovseg.methods.resclip.model import FeedbackSegmenter

__all__ = ["outputs"]


def outputs(case: Case) -> dict[str, Tensor]:
    """Labels of patches after the first pass, the feedback map, features and cosines after the second."""
    hp, image, bank = case.hp, case.tensor("image"), case.bank()
    method = ResCLIP(
        base=hp["base"],
        gaussian_std=hp["gaussian_std"],
        rcs=tuple(hp["rcs"]),
        sfr=tuple(hp["sfr"]),
        unsure=hp["unsure"],
        unsure_label="first",
        path_decay=hp["path_decay"],
        path="shortened",
        smoothing="flat",
    )
    model = method.build(case.clip(), method.readout)
    assert isinstance(model, FeedbackSegmenter)
    labels = model.patch_labels(model.features(image), image, bank)
    path = "shortened" if method.path_decay else None
    sfr = feedback_map(labels, method.gaussian_std, path, "flat")  # type: ignore[arg-type]
    return {
        "labels": labels,
        "sfr": torch.nn.functional.pad(sfr, (1, 0, 1, 0)),
        "feat": model.second_pass(image, bank).patches,
        "logits": model(image, bank),
    }
