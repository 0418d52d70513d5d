from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ovseg.dense.score_field import ScoreField
from ovseg.dense.windows import slide
from ovseg.inference import mask_refinement
from ovseg.inference.decision import decide
from ovseg.inference.mask_refinement import redraw
from ovseg.inference.steps import DropBackground, SamRefine, Softmax
from ovseg.vocab.vocabulary import Vocabulary

SIZE = (40, 60)
STEP = SamRefine(coarse=0.3, min_area=4, min_quality=0.5)


class Boxes:
    """Draws each prompt's box, somewhat larger; keeps what it was asked."""

    def __init__(self, quality=0.9, grow=2.0):
        self.quality, self.grow, self.asked = quality, grow, []

    def prompt(self, weights):
        return weights

    def __call__(self, boxes, points, frame, prompt, prompt_norm):
        self.asked.append((boxes, points, frame, prompt, prompt_norm))
        rows, cols = torch.arange(SIZE[0])[:, None], torch.arange(SIZE[1])
        scale = SIZE[1] / frame[1]
        masks = [
            ((cols >= b[0] - self.grow) & (cols <= b[2] + self.grow) & (rows >= b[1] - self.grow)
             & (rows <= b[3] + self.grow)).float() * 4 - 2
            for b in boxes * scale
        ]  # fmt: skip
        return torch.stack(masks), torch.full((len(boxes),), self.quality)


def scene():
    """Three classes: the ground, two squares of class 1, one of class 2."""
    labels = torch.zeros(SIZE, dtype=torch.int32)
    labels[4:12, 4:12] = labels[20:30, 30:44] = 1
    labels[4:12, 40:50] = 2
    probabilities = F.one_hot(labels.long(), 3).permute(2, 0, 1) * 0.6 + 0.1
    probabilities[1, 22, 36] = 0.95
    return labels, probabilities


def run(labels, probabilities, masks, step=STEP):
    return redraw(labels, lambda k: probabilities[k], len(probabilities), masks, step)


def test_every_region_prompts_with_its_box_and_its_surest_pixel():
    labels, probabilities = scene()
    masks = Boxes()
    run(labels, probabilities, masks)
    boxes, points, frame, prompt, norm = masks.asked[1]  # class 1
    assert frame == (20, 30) and norm == "channels"
    assert boxes.tolist() == [[2, 2, 5, 5], [15, 10, 21, 14]]
    assert points[1].tolist() == [18, 11]
    assert prompt.max() <= 0.005 * 0.95 and prompt[0, 0] == 0
    assert torch.allclose(prompt[3, 3], torch.tensor(0.005 * 0.7))


def test_masks_change_labels_where_they_are_good_and_others_stay():
    labels, probabilities = scene()
    probabilities[0] = 0.0  # nothing of the ground is sure
    grown = run(labels, probabilities, Boxes())
    assert (grown[2:13, 38:51] == 2).all()
    assert (grown[34:, :20] == 0).all()
    assert torch.equal(run(labels, probabilities, Boxes(quality=0.4)), labels)


def test_the_class_that_is_likelier_wins_where_masks_overlap():
    labels, probabilities = scene()
    probabilities[:, 4:12, 12:40] = torch.tensor([0.0, 0.2, 0.4])[:, None, None]
    grown = run(labels, probabilities, Boxes(grow=28.0))
    assert (grown[4:12, 12:40] == 2).all()


def test_small_and_unsure_regions_prompt_nothing():
    labels, probabilities = scene()
    masks = Boxes()
    run(labels, probabilities, masks, SamRefine(coarse=0.3, min_area=25, min_quality=0.5))
    assert [len(boxes) for boxes, *_ in masks.asked] == [1, 1]  # the ground, one square of class 1
    masks = Boxes()
    assert torch.equal(run(labels, probabilities, masks, SamRefine(coarse=0.99, min_area=4)), labels)
    assert not masks.asked


def test_many_regions_are_drawn_in_parts(monkeypatch):
    labels, probabilities = scene()
    probabilities[0] = 0.0
    expected = run(labels, probabilities, Boxes())
    monkeypatch.setattr(mask_refinement, "_PROMPTS", 1)
    masks = Boxes()
    assert torch.equal(run(labels, probabilities, masks), expected)
    assert len(masks.asked) == 3


def test_as_a_step_it_acts_before_background_is_dropped():
    _, probabilities = scene()
    probabilities[0] *= 0.2
    step = SamRefine(coarse=0.45, min_area=4, min_quality=0.5)  # of which the ground falls short
    field = ScoreField.from_windows(probabilities.log()[None], slide(SIZE))
    vocabulary = Vocabulary.of(["!ground", "square", "other"])
    with pytest.raises(ValueError, match="sam_refine needs a method that looks at the image with SAM"):
        decide(field, (Softmax(1.0), step), vocabulary)
    masks = Boxes()
    with_masks = ScoreField(field.layers, field.size, field.output_size, masks=masks)
    labels = decide(with_masks, (Softmax(1.0), step, DropBackground()), vocabulary).label_map
    plain = decide(field, (Softmax(1.0), DropBackground()), vocabulary).label_map
    sure = decide(field, (Softmax(1.0),), vocabulary, class_scores=True)
    expected = redraw(sure.label_map, lambda k: sure.class_scores[k], 3, Boxes(), step)
    assert torch.equal(labels, torch.where(expected == 0, -1, expected))
    assert (labels != plain).any() and masks.asked
