"""The baseline of a trained detector: its own proposals, cut out and named by the CLIP it began with.

``python -m ovseg.evaluation.crops region_clip_vit_tiny.emoji_boxes vit_tiny.emoji --split test``
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

import numpy as np
import torch

from ovseg.evaluation.detections import Detect, Found
from ovseg.evaluation.ground_truth import GroundTruth
from ovseg.regions.classify import class_rows, region_logits, region_scores
from ovseg.regions.embed import embed_crops
from ovseg.regions.fuse import fuse, objectness_scores
from ovseg.regions.proposals import Proposals
from ovseg.regions.select import Selection, select_detections
from ovseg.towers.weights import LoadedClip
from ovseg.vocab.text_bank import TextBank

if TYPE_CHECKING:
    from ovseg.inference.predictor import Predictor

__all__ = ["crop_detector", "main"]


def crop_detector(
    predictor: Predictor, clip: LoadedClip, bank: TextBank, selection: Selection, size: int = 64
) -> Detect:
    """Names the proposals of a detector by crops.

    Args:
        predictor: Its localiser gives the boxes, with objectness.
        clip: Names them.
        bank: All words, from its text tower.
        selection: Threshold, suppression, number.
        size: Pixels of a crop's side.
    """
    rows, scale = class_rows(bank), float(clip.model.logit_scale.detach().exp())
    mean, std = (torch.tensor(values)[:, None, None] for values in (clip.info.mean, clip.info.std))

    @torch.inference_mode()
    def detect(image: np.ndarray, truth: GroundTruth) -> Found:
        proposals: Proposals = predictor.proposals(image)
        pixels = (torch.from_numpy(image).permute(2, 0, 1).float() / 255 - mean) / std
        regions = embed_crops(clip.model.encode_image, pixels, proposals.boxes, size)
        logits = region_logits(regions, rows, scale)
        scores = region_scores(logits, bank.word_to_class, len(bank.vocabulary))[:, :-1]
        assert proposals.logits is not None
        scores = fuse([scores, objectness_scores(proposals.logits, "sigmoid")], [0.5, 0.5])
        found = select_detections(proposals.boxes, scores, selection)
        return Found(found.boxes.numpy(), found.scores.numpy(), found.labels.numpy())

    return detect


def main(argv: list[str] | None = None) -> int:
    """Entry point; prints JSON and returns the exit code."""
    import ovseg
    from ovseg.evaluation.box_sets import open_box_set
    from ovseg.evaluation.detections import evaluate_detections
    from ovseg.evaluation.report_boxes import report_boxes
    from ovseg.towers.weights import load_clip
    from ovseg.vocab.text_bank import encode_vocabulary

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("detector", help="a row of `ovseg models` with a localiser")
    parser.add_argument("tower", help="the CLIP that sees the crops")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--size", type=int, default=64, help="pixels of a crop's side (default 64)")
    args = parser.parse_args(argv)
    data, predictor = open_box_set("emoji_boxes", split=args.split), ovseg.load(args.detector)
    clip, templates = load_clip(args.tower), predictor.protocol.templates
    with torch.no_grad():
        bank = encode_vocabulary(clip.model, clip.tokenizer, data.vocabulary, templates)
    selection = Selection(threshold=data.threshold, limit=data.limit)
    detect = crop_detector(predictor, clip, bank, selection, args.size)
    found = evaluate_detections(detect, data, limit=args.limit)
    assert found is not None
    print(json.dumps(report_boxes(found, data)["groups"], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
