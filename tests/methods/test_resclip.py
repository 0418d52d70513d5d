"""ResCLIP's feedback map against a naive computation, and its two passes against a block by hand."""

from __future__ import annotations

import math

import pytest
import torch
from naive import grid, last_block_parts, mix, soft

import ovseg
from ovseg.methods.resclip import ResCLIP, middle_blocks
from ovseg.methods.resclip.feedback import feedback_map
from ovseg.vocab.vocabulary import Vocabulary


def straight(start, end, steps, parts):
    """Cells on the first ``steps`` of ``parts`` equal parts of a line."""
    return [tuple(round(a + (b - a) * step / parts) for a, b in zip(start, end)) for step in range(steps + 1)]


def naive_map(labels, std, path, smoothing):
    """Pair by pair."""
    h, w = labels.shape
    cells = [(y, x) for y in range(h) for x in range(w)]
    farthest = max(h, w) - 1
    out = torch.zeros(h * w, h * w)
    for i, start in enumerate(cells):
        for j, end in enumerate(cells):
            if labels[start] != labels[end]:
                continue
            distance = max(abs(a - b) for a, b in zip(start, end))
            parts = max(farthest if path == "shortened" else distance, 1)
            kept = all(labels[cell] == labels[start] for cell in straight(start, end, distance, parts))
            out[i, j] = 1 if path is None or kept else math.exp(-distance / farthest)
    smooth = torch.zeros_like(out)
    for j, (y, x) in enumerate(cells):
        for k, (v, u) in enumerate(cells):
            if smoothing == "grid":
                squared = (y - v) ** 2 + (x - u) ** 2
            else:
                squared = (j - k) ** 2 if abs(j - k) <= min(h * w, 31) // 2 else math.inf
            smooth[:, k] += out[:, j] * math.exp(-squared / (2 * std**2))
    return smooth / smooth.sum(dim=1, keepdim=True)


@pytest.mark.parametrize("path", ["whole", "shortened", None])
@pytest.mark.parametrize("smoothing", ["grid", "flat"])
@pytest.mark.parametrize("size", [(4, 6), (1, 5), (7, 2)])
def test_feedback_map(path, smoothing, size):
    torch.manual_seed(0)
    labels = torch.randint(-1, 2, (2, *size))
    ours = feedback_map(labels, 5.0, path, smoothing)
    for one, image in zip(ours, labels):
        torch.testing.assert_close(one, naive_map(image, 5.0, path, smoothing), atol=1e-6, rtol=1e-4)


def test_one_patch():
    assert feedback_map(torch.zeros(1, 1, 1, dtype=torch.int64), 5.0).tolist() == [[[pytest.approx(1.0)]]]


def bias(h, w, std):
    place = torch.cartesian_prod(torch.arange(h), torch.arange(w)).float()
    near = torch.exp(-(torch.cdist(place, place) ** 2) / (2 * std**2))
    return torch.nn.functional.pad(near, (1, 0, 1, 0))


def mixed(own, other, scale, share):
    return scale * ((1 - share) * own + share * other)


@pytest.mark.parametrize("base", ["naclip", "clearclip", "sclip"])
@torch.inference_mode()
def test_two_passes(base, tiny_clip):
    """Of a tower of 3 blocks the second one is the middle."""
    visual, image = tiny_clip.model.visual, torch.randn(3, 48, 80)
    predictor = ovseg.build("resclip", tiny_clip, base=base, unsure=0.3)
    model, bank = predictor.model, predictor._planner.bank(Vocabulary.of(["cat", "dog", "sky"]))
    tokens, (q, k, v) = last_block_parts(visual, image, "bicubic_offset")
    first_block, second_block = visual.blocks[:2]
    normed = second_block.ln_1(first_block(visual.embed(image[None], "bicubic_offset")))
    middle = [
        soft(a[0], b[0]) for a, b in zip(*(part.unbind(1) for part in second_block.attn.qkv(normed)[:2]))
    ]

    def one_pass(feedback):
        def weights(z, near=0.0):
            logits = z @ z.T / z.shape[1] ** 0.5
            return ((logits if feedback is None else mixed(logits, feedback, 1.8, 0.7)) + near).softmax(dim=1)

        own = {
            "naclip": [weights(b, bias(3, 5, 5.0)) for b in k],
            "clearclip": [weights(a) for a in q],
            "sclip": [weights(a) + weights(b) for a, b in zip(q, k)],
        }[base]
        x = mix(visual, [mixed(a, b, 2.0, 0.4) for a, b in zip(own, middle)], v)
        if base == "sclip":
            x = tokens + x
            x = x + visual.blocks[-1].mlp(visual.blocks[-1].ln_2(x))
        return grid(x, visual, (3, 5))

    features = model.features(image[None])
    torch.testing.assert_close(features.patches, one_pass(None), atol=1e-5, rtol=1e-4)
    labels = model.patch_labels(features, image[None], bank)
    near = feedback_map(labels, 5.0)[0]
    second = one_pass(torch.nn.functional.pad(near / near.max(), (1, 0, 1, 0)))
    expected = torch.nn.functional.normalize(second, dim=1)[0].permute(1, 2, 0) @ bank.matrix.T
    torch.testing.assert_close(model(image[None], bank)[0].permute(1, 2, 0), expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_patches_take_the_label_of_most_pixels(tiny_clip):
    image = torch.randn(1, 3, 50, 85)
    for label, name in ((-1, "own"), (0, "first")):
        predictor = ovseg.build("resclip", tiny_clip, unsure=1.1, unsure_label=name)
        bank = predictor._planner.bank(Vocabulary.of(["cat", "dog"]))
        labels = predictor.model.patch_labels(predictor.model.features(image), image, bank)
        assert labels.shape == (1, 3, 5)
        assert (labels == label).all()


def test_middle_blocks():
    assert middle_blocks(12) == middle_blocks(24) == (5, 6, 7, 8)
    assert middle_blocks(6) == (2, 3)
    assert [middle_blocks(depth) for depth in (1, 2, 3)] == [(0,), (0,), (1,)]


def test_an_unknown_base_is_named():
    with pytest.raises(ValueError, match="base must be 'naclip', 'clearclip' or 'sclip'"):
        ResCLIP(base="maskclip")


def test_the_paper_protocols():
    voc = ResCLIP.protocols["voc21"]
    assert voc.crop is None
    assert voc.fields["unsure"] == 0.5
    assert voc.fields["rcs"] == (2.0, 0.3)
    assert voc.fields["sfr"] == (2.2, 0.7)
    assert voc.paper == {"vit_b16.openai": 61.1, "vit_l14.openai": 54.1}
    quirks = {"unsure_label": "first", "path": "shortened", "smoothing": "flat"}
    papers = [p for name, p in ResCLIP.protocols.items() if "emoji" not in name and name != "default"]
    assert len(papers) == 8
    assert all(quirks.items() <= p.fields.items() for p in papers)
