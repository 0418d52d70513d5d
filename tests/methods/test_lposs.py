from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import ovseg
from ovseg.dense.features import DenseFeatures
from ovseg.dense.view import View
from ovseg.dense.windows import slide
from ovseg.inference.decision import decide
from ovseg.methods.lposs import graphs
from ovseg.methods.lposs.graphs import lab, patch_graph, pixel_graph
from ovseg.methods.lposs.model import best_words
from ovseg.vocab.text_bank import TextBank
from ovseg.vocab.vocabulary import Vocabulary


def dense(graph, count):
    return graph(torch.eye(count))


def normalised(weights):
    weights = weights.clone().double()
    weights.fill_diagonal_(0)
    degree = weights.sum(1)
    root = torch.where(degree == 0, 1.0, degree).rsqrt()
    return (root[:, None] * weights * root).float()


@pytest.mark.parametrize("neighbours", [1, 5, 12, 400])
def test_patch_graph_equals_the_definition(neighbours, monkeypatch):
    torch.manual_seed(0)
    features, centres = F.normalize(torch.randn(12, 4), dim=1), 100 * torch.rand(12, 2)
    weights = torch.zeros(12, 12)
    for i in range(12):
        order = (features @ features[i]).argsort(descending=True)[:neighbours]
        for j in order.tolist():
            near = torch.exp(-0.02 * (centres[i] - centres[j]).norm() ** 1.5)
            weights[i, j] = (features[i] @ features[j]).clamp(min=0) ** 3 * near
    graph = patch_graph(features, centres, neighbours, 3.0, 0.02, 1.5)
    torch.testing.assert_close(dense(graph, 12), normalised(weights + weights.T), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [3, 5])
def test_pixel_graph_equals_the_definition_in_any_number_of_bands(window, monkeypatch):
    torch.manual_seed(0)
    image = 0.5 + 0.1 * torch.rand(3, 6, 5)
    colours = (lab(image) / torch.tensor([100.0, 128, 128])[:, None, None]).flatten(1).T
    weights = torch.zeros(30, 30)
    for i in range(30):
        for j in range(30):
            (y, x), (v, u) = divmod(i, 5), divmod(j, 5)
            if max(abs(y - v), abs(x - u)) <= window // 2:
                weights[i, j] = torch.exp(-(colours[i] - colours[j]).norm() / 0.05)
    for edges in (1, 300, 1 << 21):
        monkeypatch.setattr(graphs, "_BAND", edges)
        graph = pixel_graph(image, window, 0.05)
        torch.testing.assert_close(dense(graph, 30), normalised(weights), atol=1e-5, rtol=1e-5)


def test_lab_is_that_of_the_cie():
    color = pytest.importorskip("skimage.color")
    image = torch.rand(3, 5, 6)
    expected = color.rgb2lab(image.permute(1, 2, 0).double().numpy())
    np.testing.assert_allclose(lab(image).permute(1, 2, 0).numpy(), expected, atol=2e-3)


class Colours:
    """An auxiliary tower whose values are the mean colour of each patch, the class token first."""

    stride = 8

    def __call__(self, image01, taps=()):
        maps = F.avg_pool2d(image01, 8)
        tokens = maps.flatten(2).transpose(1, 2)
        tokens = torch.cat([torch.full_like(tokens[:, :1], 9.0), tokens], dim=1)
        return DenseFeatures(maps, None, 8, "width", dict.fromkeys(taps, tokens))


def bank(*classes):
    vocabulary = Vocabulary.of(list(classes))
    rows = F.normalize(torch.randn(len(vocabulary.words), 1, 32), dim=-1)
    return TextBank(rows, True, torch.tensor(vocabulary.word_to_class), vocabulary)


def view(image, crop=32, stride=16, output=None, info=None):
    size = (image.shape[1], image.shape[2])
    return View(image, slide(size, crop, stride), output or size, info.mean, info.std, batch_size=2)


def test_patches_of_all_windows_carry_their_places(tiny_clip):
    model = ovseg.build("lposs", tiny_clip, auxiliary=Colours()).model
    image = torch.rand(3, 40, 56)
    patches = model.patches(view(image, info=tiny_clip.info), bank("a", "b"))
    assert patches.grid == (4, 4) and patches.scores.shape == (6 * 16, 2)
    for centre, feature in zip(patches.centres.long().tolist(), patches.features):
        y, x = centre
        colour = image[:, y - 4 : y + 4, x - 4 : x + 4].mean(dim=(1, 2))
        torch.testing.assert_close(feature, F.normalize(colour, dim=0), atol=1e-5, rtol=1e-5)


def test_without_neighbours_scores_are_maskclips(tiny_clip):
    words, image = bank("a", "b", "c"), torch.rand(3, 48, 64)
    ours = ovseg.build("lposs", tiny_clip, alpha=0.0).model
    plain = ovseg.build("maskclip", tiny_clip).model
    window = view(image, info=tiny_clip.info)
    expected = plain.score_field(window, words).full()
    torch.testing.assert_close(ours.score_field(window, words).full(), expected, atol=1e-5, rtol=1e-5)


def test_windows_of_one_image_are_joined(tiny_clip):
    """A change in one window reaches the others; without propagation it does not."""
    words, image = bank("a", "b"), torch.rand(3, 32, 96)
    changed = image.clone()
    changed[:, :, 64:] = torch.rand(3, 32, 32)
    far = []
    for alpha in (0.0, 0.95):
        model = ovseg.build("lposs", tiny_clip, alpha=alpha, auxiliary=Colours()).model
        one, two = (
            model.score_field(view(x, stride=32, info=tiny_clip.info), words).full() for x in (image, changed)
        )
        far.append((one - two)[:, :, :24].abs().max().item())
    assert far[0] < 1e-6 and far[1] > 1e-3


def test_sides_that_are_no_multiple_of_a_patch_are_padded_with_black(tiny_clip):
    model = ovseg.build("lposs", tiny_clip, auxiliary=Colours()).model
    image = torch.rand(1, 3, 30, 41)
    normalise = View(image[0], slide((30, 41)), (30, 41), model.clip.mean, model.clip.std).normalise
    features = model.features(normalise(image))
    assert features.grid == (2, 3)
    black = F.pad(image, (0, 48 - 41, 0, 32 - 30))
    expected = ovseg.build("maskclip", tiny_clip).model.features(normalise(black))
    torch.testing.assert_close(features.patches, expected.patches, atol=1e-5, rtol=1e-5)
    assert model(normalise(image), bank("a")).shape == (1, 1, 4, 6)  # on the auxiliary tower's grid


def test_pixels_of_one_colour_come_to_one_score(tiny_clip):
    image = torch.zeros(3, 32, 48)
    image[0, :, :22] = image[1, :, 22:] = 0.8
    words = bank("a", "b")
    spreads = {}
    for method in ("lposs", "lposs_plus"):
        model = ovseg.build(method, tiny_clip).model
        scores = model.score_field(view(image, info=tiny_clip.info), words).full()
        spreads[method] = (scores[:, :, 21] - scores[:, :, 22]).abs().mean() / scores.std()
    assert spreads["lposs_plus"] > 3 * spreads["lposs"]  # the edge of the colours is an edge of the scores


def test_the_best_word_may_be_taken_before_or_after_resizing(tiny_clip):
    words, image = bank("a: b | c | d", "e"), torch.rand(3, 48, 64)
    results = {}
    for first in (False, True):
        model = ovseg.build("lposs", tiny_clip, merge_words_first=first).model
        field = model.score_field(view(image, output=(31, 40), info=tiny_clip.info), words)
        results[first] = decide(field, (), words.vocabulary, class_scores=True).class_scores
        if not first:
            at_size = model.score_field(view(image, info=tiny_clip.info), words).full()
    expected = F.interpolate(
        best_words(at_size, words)[None, [0, 3]], (31, 40), mode="bilinear", align_corners=False
    )[0]
    torch.testing.assert_close(results[True], expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(results[False], expected, atol=1e-4)


def test_settings_are_checked(tiny_clip):
    with pytest.raises(ValueError, match="alpha must lie between 0 and below 1"):
        ovseg.build("lposs", tiny_clip, alpha=1.0)
    with pytest.raises(ValueError, match="tau > 0"):
        ovseg.build("lposs", tiny_clip, tau=0)
