"""From a fine-tuning of RegionCLIP on EmojiScenes to embedded weights:
``python -m ovseg.training.region_clip work_dirs/region_clip/regressor/iter_600.pth FILE.safetensors``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ovseg.methods.region_clip import RegionCLIP
from ovseg.methods.region_clip.detector import RegionDetector
from ovseg.towers.checkpoints import check_fits, read_state_dict
from ovseg.towers.weights import load_clip
from ovseg.training.export import export_learned

__all__ = ["learned_detector", "main"]

_NAMES = {
    "roi_head.regressor.": "regressor.",
    "roi_head.bbox_head.rows": "rows",
    "localiser.rpn_head.": "localiser.",
    "roi_head.shared_head.regions.": "tuned.",
}


def learned_detector(state: Mapping[str, Tensor], base: str, detector: str = "emoji_boxes") -> RegionDetector:
    """The plain module with the weights of a training.

    Args:
        state: Of a ``RegionCLIPDetector`` on a ViT.
        base: Name of the CLIP that its config's ``tower`` names.
        detector: Name in ``ovseg.methods.region_clip.DETECTORS``.

    Raises:
        CheckpointError: A tensor is missing or of another shape.
    """
    clip, method = load_clip(base).model, RegionCLIP(detector)
    model = method.build(clip, method.readout)
    assert isinstance(model, RegionDetector)
    weights = dict(model.state_dict())
    for name, value in state.items():
        prefix = next((prefix for prefix in _NAMES if name.startswith(prefix)), None)
        if prefix is not None:
            weights[_NAMES[prefix] + name.removeprefix(prefix)] = value
    check_fits(weights, model, "this training")
    model.load_state_dict(weights)
    return model.eval()


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="of configs/region_clip/emoji_regressor.py")
    parser.add_argument(
        "out", type=Path, metavar="FILE", help="a .safetensors file for ovseg.build(tower=...)"
    )
    parser.add_argument("--base", default="vit_tiny.emoji", help="the CLIP that it began with")
    args = parser.parse_args(argv)
    state: Mapping[str, Tensor] = read_state_dict(args.checkpoint)
    print(export_learned(learned_detector(state, args.base), args.base, args.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
