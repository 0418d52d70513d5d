"""Decisions against a naive implementation that holds everything at full size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ovseg.dense.pamr import pamr, pamr_affinity
from ovseg.dense.score_field import ScoreField
from ovseg.dense.windows import slide
from ovseg.inference import decision
from ovseg.inference.decision import decide
from ovseg.inference.steps import DropBackground, Floor, Margin, MinMax, Pamr, RegionVote, SmallAreas, Softmax
from ovseg.vocab.vocabulary import Vocabulary, VocabularyClass


def naive(scores, steps, vocabulary, image=None):
    """(label map, score, class scores, top-two margin), step by step on (Q, H, W)."""
    classes = torch.tensor(vocabulary.word_to_class)
    background = torch.tensor([c.is_background for c in vocabulary.classes])

    def per_class(x):
        return torch.stack([x[classes == k].amax(dim=0) for k in range(len(vocabulary))])

    softmax = False
    for step in steps:
        if isinstance(step, Pamr):
            affinity = pamr_affinity(image, step.dilations)
            scores = pamr(scores, affinity, step.dilations, step.iterations)
        elif isinstance(step, MinMax):
            flat = scores.flatten(1)
            low, high = flat.amin(dim=1)[:, None, None], flat.amax(dim=1)[:, None, None]
            scores = (scores - low) / (high - low)
        elif isinstance(step, Softmax):
            softmax = True
            if step.over == "words":
                scores = (step.scale * scores).softmax(dim=0)
            else:
                scores = (step.scale * per_class(scores)).softmax(dim=0)
    if scores.shape[0] != len(vocabulary):
        scores = per_class(scores)
    for step in steps:
        if isinstance(step, SmallAreas):
            area = torch.bincount(scores.argmax(dim=0).flatten(), minlength=len(vocabulary))
            small = ~background & (area <= step.share * area[~background].sum())
            scores = scores.clone()
            scores[small] = 0 if softmax else -torch.inf
    all_scores = scores
    label = scores.argmax(dim=0)
    top = scores.topk(min(2, len(scores)), dim=0).values
    best = top[0]
    margin = best - top[1] if len(top) > 1 else torch.full_like(best, torch.inf)
    near = margin.clone()
    for step in steps:
        if isinstance(step, Floor):
            label[best < step.threshold] = step.label
            near = torch.minimum(near, (best - step.threshold).abs())
        elif isinstance(step, Margin):
            lead = best - (top[1] if len(top) > 1 else 0)
            label[lead < step.margin] = step.label
            near = torch.minimum(near, (lead - step.margin).abs())
        elif isinstance(step, DropBackground):
            label[(label >= 0) & background[label.clamp(min=0)]] = -1
    return label, best, all_scores, near


def make_vocabulary(classes, synonyms=1, background=()):
    return Vocabulary(
        tuple(
            VocabularyClass(f"c{k}", tuple(f"w{k}.{i}" for i in range(1 + k % synonyms)), k in background)
            for k in range(classes)
        )
    )


def make_field(vocabulary, size=(60, 83), output=(60, 83), crop=None, stride=None, scale=0.1):
    torch.manual_seed(0)
    grid = slide(size, crop, stride)
    return ScoreField.from_windows(scale * torch.randn(len(grid), len(vocabulary.words), 5, 6), grid, output)


def check(field, steps, vocabulary, image=None):
    expected, best, all_scores, margin = naive(field.full(), steps, vocabulary, image)
    labels = decide(field, steps, vocabulary, image, class_scores=True)
    assert labels.label_map.dtype == torch.int32
    clear = margin > 1e-5
    assert clear.float().mean() > 0.9
    assert (labels.label_map == expected)[clear].all()
    assert torch.equal(decide(field, steps, vocabulary, image).label_map, labels.label_map)
    torch.testing.assert_close(labels.class_scores, all_scores, atol=5e-6, rtol=1e-5)
    if not any(isinstance(step, SmallAreas) for step in steps):
        torch.testing.assert_close(labels.scores, best, atol=5e-6, rtol=1e-5)
    return labels


STEPS = {
    "raw": (),
    "softmax": (Softmax(40.0),),
    "floor": (Softmax(40.0), Floor(0.12)),
    "floor to background": (Softmax(40.0), Floor(0.12, label=0)),
    "margin": (Softmax(40.0), Margin(0.05)),
    "raw margin": (Margin(0.02),),
    "words": (Softmax(40.0), DropBackground()),
    "classes": (Softmax(40.0, over="classes"), Floor(0.12, label=0)),
    "areas": (Softmax(40.0), SmallAreas(0.1), Floor(0.05, label=0)),
    "heat maps": (MinMax(), Margin(0.02)),
    "heat map probabilities": (MinMax(), Softmax(4.0), Floor(0.2, label=0)),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("synonyms", [1, 3])
def test_every_rule(name, synonyms):
    vocabulary = make_vocabulary(8, synonyms, background=(0, 5))
    check(make_field(vocabulary), STEPS[name], vocabulary)


@pytest.mark.parametrize("classes", [1, 2, 21, 150, 1000])
def test_any_number_of_classes(classes):
    vocabulary = make_vocabulary(classes, synonyms=2)
    check(make_field(vocabulary, (31, 45), (31, 45)), (Softmax(50.0),), vocabulary)


@pytest.mark.parametrize(
    ("size", "output", "crop", "stride"),
    [((1, 1), (1, 1), None, None), ((61, 97), (123, 55), 37, 23), ((30, 200), (60, 400), 64, 30)],
)
def test_odd_sizes_and_windows_off_the_grid(size, output, crop, stride):
    vocabulary = make_vocabulary(5, synonyms=2)
    check(make_field(vocabulary, size, output, crop, stride), (Softmax(40.0), Margin(0.02)), vocabulary)


@pytest.mark.parametrize("rest", [(), (Softmax(40.0), Margin(0.05)), (Softmax(40.0), SmallAreas(0.1))])
def test_refinement_in_ranges_of_words(rest, monkeypatch):
    vocabulary = make_vocabulary(7, synonyms=3, background=(2,))
    image = torch.rand(3, 60, 83)
    steps = (Pamr(2, (1, 3)), *rest)
    whole = check(make_field(vocabulary), steps, vocabulary, image)
    monkeypatch.setattr(decision, "_CHUNK_ELEMENTS", 60 * 83 * 3)
    chunked = check(make_field(vocabulary), steps, vocabulary, image)
    assert torch.equal(whole.label_map, chunked.label_map)


def test_heat_maps_after_a_refinement_in_ranges_of_words(monkeypatch):
    vocabulary = make_vocabulary(7, synonyms=3)
    monkeypatch.setattr(decision, "_CHUNK_ELEMENTS", 60 * 83 * 3)
    check(make_field(vocabulary), (Pamr(2, (1, 3)), MinMax()), vocabulary, torch.rand(3, 60, 83))


def test_a_constant_heat_map_is_zero():
    vocabulary = make_vocabulary(2)
    field = ScoreField.from_windows(torch.full((1, 2, 3, 3), 0.25), slide((12, 12)))
    labels = decide(field, (MinMax(),), vocabulary, class_scores=True)
    assert (labels.class_scores == 0).all()


def test_regions_vote_before_the_rules_that_follow():
    vocabulary = make_vocabulary(5, synonyms=2, background=(3,))
    regions = torch.arange(-1, 11).view(3, 4).repeat_interleave(20, 0).repeat_interleave(21, 1)[:, :83]
    field = replace(make_field(vocabulary), regions=regions)
    plain = decide(field, (), vocabulary).label_map
    voted = decide(field, (RegionVote(), DropBackground()), vocabulary).label_map
    for region in regions.unique():
        inside = regions == region
        before = plain[inside]
        if region >= 0:  # the others vote for themselves
            before = torch.full_like(before, torch.bincount(before, minlength=5).argmax())
        assert torch.equal(voted[inside], before.masked_fill(before == 3, -1))


def test_unlabelled_pixels_vote_too():
    field = ScoreField.from_windows(torch.tensor([0.1, 0.2, 0.9]).view(1, 1, 1, 3), slide((1, 3)))
    field = replace(field, regions=torch.zeros(1, 3, dtype=torch.int64))
    labels = decide(field, (Floor(0.5), RegionVote()), make_vocabulary(1))
    assert labels.label_map.tolist() == [[-1, -1, -1]]


def test_a_class_without_words_never_wins():
    classes = (
        VocabularyClass("background", (), True),
        VocabularyClass("a", ("a",)),
        VocabularyClass("b", ("b",)),
    )
    vocabulary = Vocabulary(classes)
    labels = decide(make_field(vocabulary), (Softmax(40.0),), vocabulary, class_scores=True)
    assert set(labels.label_map.unique().tolist()) == {1, 2}
    assert (labels.class_scores[0] == 0).all()


def test_misuse_is_named():
    vocabulary = make_vocabulary(3)
    field = make_field(vocabulary)
    with pytest.raises(
        ValueError, match="refinements, then at most one softmax, then rules; got floor -> softmax"
    ):
        decide(field, (Floor(0.1), Softmax(40.0)), vocabulary)
    with pytest.raises(ValueError, match="scores of 3 words for a vocabulary of 4"):
        decide(field, (), make_vocabulary(4))
    with pytest.raises(ValueError, match="needs the image at the output size"):
        decide(field, (Pamr(),), vocabulary)
    with pytest.raises(ValueError, match="region_vote needs regions"):
        decide(field, (RegionVote(),), vocabulary)
