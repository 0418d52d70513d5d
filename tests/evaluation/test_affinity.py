from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from emoji_fakes import fake_drawings

from ovseg.evaluation.affinity import affinity_auc, colour_features, patch_affinity


def test_auc_counts_the_pairs_that_are_in_order():
    objects = torch.tensor([[1, 1, 0], [2, 2, -1]])
    apart = F.one_hot(objects.clamp(min=0), 3).permute(2, 0, 1).float()
    assert affinity_auc(apart, objects) == 1
    swapped = apart.clone()
    swapped[:, 0, 1] = apart[:, 1, 0]  # one patch of object 1 looks like object 2
    # patch (0, 0): none in order among 3; (0, 1): as like to its own as to the background, less than to object 2
    assert affinity_auc(swapped, objects) == pytest.approx((0 + 0 + 2 / 3 + 2 / 3) / 4)


def test_mixed_patches_do_not_count():
    objects = torch.tensor([[1, 1, 0, -1]])
    features = torch.tensor([[[1.0, 1.0, 0.0, 1.0]], [[0.0, 0.0, 1.0, 0.0]]])
    assert affinity_auc(features, objects) == 1


def test_masks_give_all_and_noise_gives_half():
    torch.manual_seed(0)
    figures = patch_affinity(
        lambda image: {"noise": torch.randn(1, 8, 28, 28), "colours": colour_features(image)},
        fake_drawings(), scenes=3,
    )  # fmt: skip
    assert abs(figures["noise"] - 50) < 3 and figures["colours"] > 70


def test_cosines_of_colours_rank_as_their_distances():
    image = torch.rand(1, 3, 16, 24)
    colours = F.avg_pool2d(image, 8).flatten(2)[0].T
    features = colour_features(image)[0].flatten(1).T
    distances, cosines = torch.cdist(colours, colours)[0], (features @ features.T)[0]
    assert torch.equal(distances.argsort(), cosines.argsort(descending=True))
