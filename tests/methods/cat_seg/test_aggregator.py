"""The head against its straightforward form: every saving is exact."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from straightforward import Straightforward

from ovseg.methods.cat_seg.converter import convert_aggregator, to_published_aggregator
from ovseg.methods.cat_seg.windows import windows_of


def plain(head, grid):
    weights = to_published_aggregator(dict(head.named_parameters()), grid, head.config.window)
    return Straightforward(weights, head.config)


@pytest.mark.parametrize("attention", ["linear", "full"])
@pytest.mark.parametrize("classes", [1, 7, 8, 13])
@pytest.mark.parametrize("pooling", [(1, 1), (2, 2), (3, 2)])
def test_equals_the_straightforward_form(make_head, make_inputs, attention, classes, pooling):
    head, inputs = make_head(attention=attention, templates=2), make_inputs(classes, batch=2, templates=2)
    with torch.no_grad():
        ours, theirs = head(*inputs, pooling), plain(head, (8, 8))(*inputs, pooling)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("grid", [(12, 8), (8, 12), (4, 8), (4, 4)])
def test_grids_of_other_shapes(make_head, make_inputs, grid):
    head, inputs = make_head(), make_inputs(5, grid)
    with torch.no_grad():
        torch.testing.assert_close(head(*inputs), plain(head, grid)(*inputs), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("changes", [{"pad_len": 0}, {"window": 2}, {"layers": 1}, {"heads": 2}])
def test_other_sizes(make_head, make_inputs, changes):
    head, inputs = make_head(**changes), make_inputs(9)
    with torch.no_grad():
        torch.testing.assert_close(head(*inputs), plain(head, (8, 8))(*inputs), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("classes", [5, 13])
def test_gradients_equal_those_of_the_straightforward_form(make_head, make_inputs, classes):
    # in float64: where float32 rounds differently, a ReLU near 0 may open on one side only
    head, (features, text, guidance) = make_head().double(), make_inputs(classes, batch=2)
    inputs = features.double(), text.double().requires_grad_(), tuple(part.double() for part in guidance)
    found = []
    for run in (head, plain(head, (8, 8))):
        head.zero_grad()
        inputs[1].grad = None
        logits = run(*inputs, (2, 2))
        (logits * torch.sin(torch.arange(logits.numel()).view_as(logits)) * (logits > -99)).mean().backward()
        found.append({name: p.grad for name, p in head.named_parameters()} | {"text": inputs[1].grad})
    assert any(name.endswith("padding_token") for name in found[0])
    for name, gradient in found[1].items():
        if gradient is None:  # padding that is not there
            assert found[0][name] is None
        else:
            size = gradient.abs().max()
            torch.testing.assert_close(found[0][name], gradient, atol=float(size) * 1e-8 + 1e-12, rtol=0)


def test_only_the_best_classes_of_each_image_go_on(make_head, make_inputs):
    head, (features, text, guidance) = make_head(), make_inputs(20, batch=2)
    with torch.no_grad():
        logits = head(features, text, guidance)
    kept = (logits != -100).flatten(2).any(2)
    assert kept.sum(1).tolist() == [8, 8]
    assert (kept[0] != kept[1]).any()


@torch.no_grad()
@pytest.mark.parametrize("classes", [3, 9])  # all, and the best 8
def test_cosines_are_added_to_the_logits(make_head, make_inputs, classes):
    features, text, guidance = make_inputs(classes)
    plain, corrected = (make_head(residual=value)(features, text, guidance) for value in (0.0, 8.0))
    cosines = F.normalize(text[:, 0], dim=-1) @ F.normalize(features, dim=1).flatten(2)
    full = F.interpolate(cosines.unflatten(2, (8, 8)), (32, 32), mode="bilinear", align_corners=False)
    kept = (plain[0, :, 0, 0] > -100).nonzero()[:, 0]
    offset = corrected[0, kept] - plain[0, kept] - 8 * full[0, kept]
    torch.testing.assert_close(offset, offset.mean().expand_as(offset), atol=1e-4, rtol=0)  # of the bias
    assert -2.5 < offset.mean() < -1.5


def test_a_class_does_not_depend_on_where_it_stands(make_head, make_inputs):
    head, (features, text, guidance) = make_head(), make_inputs(6)
    with torch.no_grad():
        logits, swapped = head(features, text, guidance), head(features, text.flip(0), guidance)
    torch.testing.assert_close(swapped.flip(1), logits, atol=1e-5, rtol=1e-5)


def test_wrong_number_of_templates_is_named(make_head, make_inputs):
    with pytest.raises(ValueError, match="made for 1 prompt templates, got 3"):
        make_head()(*make_inputs(4, templates=3))


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("grid", [(8, 8), (12, 8), (5, 9), (3, 7), (1, 1)])
def test_windows_cover_the_grid_once(grid, shifted):
    windows = windows_of(grid, 4, shifted)
    cells = torch.arange(2 * grid[0] * grid[1] * 3.0).view(2, *grid, 3)
    parts = windows.cut(cells)
    assert sum(part.numel() for part in parts) == cells.numel()
    assert torch.equal(windows.join(parts), cells)


def test_published_names_and_back(make_head):
    head = make_head()
    published = to_published_aggregator(head.state_dict(), (8, 8), 4)
    assert published["layers.1.swin_block.block_2.attn_mask"].shape == (4, 16, 16)
    back = convert_aggregator(published)
    assert set(back) == set(head.state_dict())
    assert all(torch.equal(back[name], value) for name, value in head.state_dict().items())
    with pytest.raises(ValueError, match="'relative_position' is no part of CAT-Seg's head"):
        convert_aggregator({"relative_position": torch.zeros(1)})
