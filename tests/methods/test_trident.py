from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import ovseg
from ovseg.dense import operators
from ovseg.dense.view import View
from ovseg.dense.windows import slide
from ovseg.methods.trident.aggregate import aggregate
from ovseg.methods.trident.model import whole_patches
from ovseg.vocab.text_bank import TextBank
from ovseg.vocab.vocabulary import Vocabulary


@dataclass
class Stored:
    """What ``aggregate`` needs of SAM; and a SAM that keeps what it is shown."""

    grid: tuple[int, int]
    values: torch.Tensor
    attention: torch.Tensor
    seen: list

    @classmethod
    def random(cls, grid, heads=2):
        count = grid[0] * grid[1]
        attention = torch.randn(heads, count, count).softmax(-1)
        return cls(grid, torch.randn(heads, count, 5) + 0.5, attention, [])

    def weights(self, rows):
        return self.attention[:, rows]

    def encode(self, image):
        self.seen.append(image)
        return self


def naive(tokens, stored, factor, negative):
    unit = F.normalize(stored.values, dim=-1)
    cosine = unit @ unit.transpose(1, 2)
    threshold = factor * cosine.mean(dim=0).mean(dim=-1)
    if negative is not None:
        threshold[threshold < 0] = negative
    threshold[threshold > 0.9] = 0.9
    weights = (stored.attention * (cosine > threshold[None, :, None])).mean(dim=0)
    return weights / weights.sum(dim=-1, keepdim=True) @ tokens


@pytest.mark.parametrize("elements", [1, 60, 1 << 20])
@pytest.mark.parametrize(("factor", "negative"), [(1.2, None), (0.0, None), (3.0, 0.6), (-1.0, 0.6)])
def test_aggregation_equals_the_naive_one(elements, factor, negative, monkeypatch):
    monkeypatch.setattr(operators, "_BLOCK_ELEMENTS", elements)
    torch.manual_seed(0)
    stored, tokens = Stored.random((3, 4)), torch.randn(12, 7)
    expected = naive(tokens, stored, factor, negative)
    torch.testing.assert_close(aggregate(tokens, stored, factor, negative), expected, atol=1e-5, rtol=1e-5)


def test_a_patch_that_is_like_no_other_keeps_its_features():
    stored, tokens = Stored.random((1, 3)), torch.randn(3, 4)
    stored.values = torch.eye(3).expand(2, 3, 3)
    torch.testing.assert_close(aggregate(tokens, stored, 1.0, None), tokens)
    stored.values = torch.zeros(2, 3, 3)  # not even like itself
    torch.testing.assert_close(aggregate(tokens, stored, 1.0, None), tokens)


def test_images_are_stretched_to_whole_patches_of_at_least_a_window():
    assert whole_patches(torch.rand(3, 96, 160), 16, 112).shape == (3, 96, 160)
    assert whole_patches(torch.rand(3, 100, 150), 16, 64).shape == (3, 112, 160)
    assert whole_patches(torch.rand(3, 20, 33), 16, 112).shape == (3, 112, 112)
    constant = whole_patches(torch.full((3, 100, 150), 0.3), 16, 64)
    torch.testing.assert_close(constant, torch.full_like(constant, 0.3))


def bank(count=2):
    rows = F.normalize(torch.randn(count, 1, 32), dim=-1)
    names = [f"class {k}" for k in range(count)]
    return TextBank(rows, True, torch.arange(count), Vocabulary.of(names))


def view(image, info, source=None, output=None):
    size = (image.shape[1], image.shape[2])
    return View(image, slide(size), output or size, info.mean, info.std, 3, source=source)


def test_windows_are_spliced_where_they_lie(tiny_clip):
    model = ovseg.build("trident", tiny_clip, window=64, window_stride=32).model
    windows = slide((96, 128), 64, 32)
    whole = torch.randn(5, 12, 16)  # two cells per patch
    tokens = torch.stack([whole[:, t // 8 : b // 8, x // 8 : r // 8] for t, x, b, r in windows.boxes()])
    torch.testing.assert_close(model.splice(tokens, windows), whole)
    other = model.splice(torch.randn(len(windows), 5, 7, 7), windows)  # another patch size: CLIP's grid
    assert other.shape == (5, 12, 16)


def test_the_mean_similarity_is_that_of_all_windows(tiny_clip):
    """So the features of an image do not depend on how many windows fit into memory."""
    settings = {"window": 64, "window_stride": 32}
    model = ovseg.build("trident", tiny_clip, **settings).model
    image = torch.rand(3, 96, 128)
    image[:, :, :64] = 0.5
    one = model.window_tokens(model.windows(view(image, tiny_clip.info)))
    for batch in (1, 100):
        shown = View(image, slide((96, 128)), (96, 128), tiny_clip.info.mean, tiny_clip.info.std, batch)
        torch.testing.assert_close(model.window_tokens(model.windows(shown)), one, atol=1e-5, rtol=1e-5)


def test_sam_looks_at_the_picture_before_it_was_resized(tiny_clip):
    sam = Stored.random((3, 5))
    model = ovseg.build("trident", tiny_clip, sam=sam, window=64, window_stride=32).model
    source = np.random.default_rng(0).integers(0, 256, (160, 224, 3), np.uint8)
    field = model.score_field(view(torch.rand(3, 64, 96), tiny_clip.info, source, (160, 224)), bank())
    assert np.array_equal(sam.seen[0], source)
    assert field.full().shape == (2, 160, 224)
    source = source[:150, :215]
    model.score_field(view(torch.rand(3, 64, 96), tiny_clip.info, source), bank())
    assert sam.seen[1].shape == (160, 224, 3)  # whole patches


def test_halves_are_joined_side_by_side(tiny_clip):
    sam = Stored.random((2, 3))
    sam.attention = torch.eye(6).expand(2, 6, 6)  # nobody listens to others
    model = ovseg.build("trident", tiny_clip, sam=sam, split_halves=True).model
    canvas, picture = torch.randn(4, 2, 6), np.arange(32 * 64 * 3, dtype=np.uint8).reshape(32, 64, 3)
    shown = view(torch.rand(3, 32, 64), tiny_clip.info)
    torch.testing.assert_close(model.fuse(canvas, model.encode(picture, shown)), canvas)
    assert np.array_equal(np.concatenate(sam.seen, axis=1), picture)


def test_features_are_in_the_joint_space_on_sams_grid(tiny_clip):
    sam = Stored.random((3, 5))
    model = ovseg.build("trident", tiny_clip, sam=sam, window=64, window_stride=32).model
    features = model.features(torch.randn(2, 3, 64, 96))
    assert features.patches.shape == (2, 32, 3, 5) and features.cls is None


def test_without_sam_the_spliced_map_is_what_is_scored(tiny_clip):
    model = ovseg.build("trident", tiny_clip, sam=None, window=32, window_stride=16).model
    one, rows = view(torch.rand(3, 48, 64), tiny_clip.info), bank()
    with torch.inference_mode():
        windows = model.windows(one)
        spliced = model.clip.visual.tail(
            model.splice(model.window_tokens(windows), windows.grid).movedim(0, -1)
        )
        field = model.score_field(one, rows)
    expected = (F.normalize(spliced, dim=-1) @ rows.matrix.T).movedim(-1, 0)
    torch.testing.assert_close(field.layers[0].scores[0, 0], expected, atol=1e-5, rtol=1e-5)
    assert field.masks is None


def test_settings_are_checked(tiny_clip):
    with pytest.raises(ValueError, match="must be multiples of the patch, 16 pixels"):
        ovseg.build("trident", tiny_clip, window=100, window_stride=50)
    with pytest.raises(ValueError, match="window_stride must lie between"):
        ovseg.build("trident", tiny_clip, window_stride=448)
    with pytest.raises(ValueError, match="unknown auxiliary tower 'sam_vit_x'"):
        ovseg.build("trident", tiny_clip, sam="sam_vit_x")
