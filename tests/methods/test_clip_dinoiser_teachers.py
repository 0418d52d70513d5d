"""CLIP-DINOiser's teachers: what they say, what is kept on disk, and how FOUND gets its masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovseg.dense.features import DenseFeatures
from ovseg.methods.clip_dinoiser.bilateral import BilateralSolver, snap
from ovseg.methods.clip_dinoiser.found import Found
from ovseg.methods.clip_dinoiser.found_training import snapped
from ovseg.methods.clip_dinoiser.teachers import StoredTeachers, Teachers


class ColourDino(torch.nn.Module):
    """A DINO that sees the mean colour of each patch, less grey. Counts its images."""

    stride = 16

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.seen = 0

    def forward(self, image01, taps=()):
        self.seen += len(image01)
        patches = self.scale * F.avg_pool2d(image01, 16) - 0.5
        tokens = torch.cat([patches.new_zeros(len(patches), 1, 3), patches.flatten(2).transpose(1, 2)], dim=1)
        return DenseFeatures(patches, None, 16, "width", {tap: tokens for tap in taps})


@pytest.fixture
def images():
    return torch.randint(0, 256, (3, 3, 48, 64), generator=torch.Generator().manual_seed(0)) / 255


def red(image01):
    """Red patches are objects, on a grid of its own."""
    return F.avg_pool2d(image01[:, :1] - 0.5, 8)


def same(one, other):
    return torch.equal(one.joined, other.joined) and torch.equal(one.objects, other.objects)


def test_targets_by_hand(images):
    targets = Teachers(ColourDino(), red)(images, (3, 4))
    colours = F.normalize(F.avg_pool2d(images, 16).flatten(2) - 0.5, dim=1)
    cosine = colours.transpose(1, 2) @ colours
    clear = (cosine - 0.2).abs() > 1e-4
    assert torch.equal(targets.joined[clear], (cosine >= 0.2)[clear])
    at_patches = F.interpolate(red(images), (3, 4), mode="bilinear", align_corners=False)
    assert torch.equal(targets.objects, at_patches > 0)
    assert 0 < targets.objects.float().mean() < 1 and 0.1 < targets.joined.float().mean() < 0.9


def test_one_pass_serves_both_teachers_on_one_tower(images):
    dino = ColourDino()
    found = Found(dino, width=3)
    shared = Teachers(dino, found)(images, (3, 4))
    assert dino.seen == len(images)
    with torch.no_grad():
        assert same(shared, Teachers(dino, lambda image: found(image))(images, (3, 4)))


def test_stored_targets_are_bit_equal_and_ask_nobody(images, tmp_path):
    fresh = Teachers(ColourDino(), red)(images, (3, 4))
    dino = ColourDino()
    assert same(StoredTeachers(Teachers(dino, red), tmp_path)(images, (3, 4)), fresh)
    assert dino.seen == len(images)
    again = StoredTeachers(Teachers(dino, red), tmp_path)
    assert same(again(images, (3, 4)), fresh)
    assert same(again(images.flip(0)[:1], (3, 4)), Teachers(ColourDino(), red)(images[2:], (3, 4)))
    assert dino.seen == len(images)
    assert not list(tmp_path.rglob(".ovseg-*"))


def test_what_is_missing_or_damaged_is_made_again(images, tmp_path):
    fresh = Teachers(ColourDino(), red)(images, (3, 4))
    StoredTeachers(Teachers(ColourDino(), red), tmp_path)(images, (3, 4))
    first, second, third = sorted(tmp_path.rglob("*.npz"))
    whole = second.read_bytes()
    first.unlink()
    second.write_bytes(whole[: len(whole) // 2])
    third.write_bytes(b"")
    dino = ColourDino()
    stored = StoredTeachers(Teachers(dino, red), tmp_path)
    assert same(stored(images, (3, 4)), fresh) and dino.seen == len(images)
    assert second.read_bytes()[: len(whole) // 2] == whole[: len(whole) // 2]
    assert same(stored(images, (3, 4)), fresh) and dino.seen == len(images)


def test_other_settings_weights_and_grids_have_other_files(images, tmp_path):
    dino = ColourDino()
    changed = ColourDino()
    with torch.no_grad():
        changed.scale.mul_(2)
    for teachers in (
        Teachers(dino, red),
        Teachers(dino, red, gamma=0.9),
        Teachers(dino, red, feature="k"),
        Teachers(changed, red),
        Teachers(dino, Found(dino, width=3)),
    ):
        stored = StoredTeachers(teachers, tmp_path)
        assert same(stored(images, (3, 4)), teachers(images, (3, 4)))
    assert len(list(tmp_path.iterdir())) == 5
    stored(images, (6, 8))
    assert len(list(tmp_path.rglob("*.npz"))) == 6 * len(images)


@pytest.fixture
def square():
    """(64, 64, 3) a red square on green, with noise, and its mask, both as patches of 16 pixels see it."""
    rng = np.random.default_rng(0)
    truth = np.zeros((64, 64), bool)
    truth[20:44, 20:44] = True
    image = np.where(truth[..., None], [200, 30, 30], [30, 160, 40]) + rng.integers(-6, 7, (64, 64, 3))
    return image.astype(np.uint8), truth


def test_a_mask_snaps_to_edges(square):
    image, truth = square
    coarse = np.zeros((64, 64), np.float32)
    coarse[16:48, 16:48] = 1
    fine = snap(coarse, BilateralSolver(image, spatial=8))
    assert fine is not None and (fine == truth).mean() > 0.99 > (coarse == truth).mean()


def test_a_mask_that_the_image_contradicts_stays(square):
    image, _ = square
    elsewhere = np.zeros((64, 64), np.float32)
    elsewhere[:12, :12] = 1
    assert snap(elsewhere, BilateralSolver(image)) is None


def test_a_constant_stays_as_it_is_under_smoothing(square):
    solver = BilateralSolver(square[0])
    np.testing.assert_allclose(solver.smooth(np.full((64, 64), 0.7)), 0.7, atol=1e-6)


def test_masks_of_patches_are_snapped_or_kept(square):
    image, truth = square
    masks = torch.zeros(2, 1, 8, 8)
    masks[0, 0, 2:6, 2:6] = 1
    masks[1, 0, 0, 0] = 1
    found = snapped(masks, [BilateralSolver(image)] * 2, (64, 64))
    any_pixel = F.interpolate(torch.from_numpy(truth)[None, None].float(), (8, 8), mode="bilinear") > 0
    assert torch.equal(found[:1] > 0, any_pixel)
    assert torch.equal(found[1], masks[1])
