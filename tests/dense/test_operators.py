from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ovseg.dense import operators
from ovseg.dense.operators import best, pool, propagate


@pytest.mark.parametrize(
    "scores",
    [
        torch.randn(13, 150, 40).transpose(0, 1),
        torch.randint(0, 3, (7, 5, 6)).float(),  # ties
        torch.randn(1, 4),
        torch.full((3, 2, 2), -torch.inf),
        torch.randn(5, 3, dtype=torch.float64),
        torch.randn(4, 3, requires_grad=True) * 2,
    ],
)
def test_best_is_the_maximum_and_the_first_of_equals(scores, monkeypatch):
    for elements in (1, 300, 1 << 18):
        monkeypatch.setattr(operators, "_BEST_ELEMENTS", elements)
        value, index = best(scores)
        assert torch.equal(value, scores.amax(dim=0))
        assert index.tolist() == scores.detach().numpy().argmax(axis=0).tolist()


def test_the_best_of_what_is_no_number_is_some_index():
    value, index = best(torch.full((3, 2), torch.nan))
    assert value.isnan().all() and ((index >= 0) & (index < 3)).all()


def naive_pool(features, guide, gamma):
    unit = F.normalize(guide, dim=1).flatten(2)
    weights = torch.einsum("bcm,bcn->bmn", unit, unit)
    if gamma:
        weights[weights < gamma] = 0
        weights[weights < 0] = 0
    pooled = torch.einsum("bmn,bcn->bcm", weights, features.flatten(2))
    return (pooled / (weights.sum(-1)[:, None] + 1e-6)).view_as(features)


def test_pool_equals_the_whole_matrix_in_any_number_of_blocks(monkeypatch):
    torch.manual_seed(0)
    features, guide = torch.randn(2, 5, 6, 7), torch.randn(2, 8, 6, 7)
    for elements in (1, 300, 1 << 20):
        monkeypatch.setattr(operators, "_BLOCK_ELEMENTS", elements)
        for gamma in (0.2, 0.0, None):
            expected = naive_pool(features, guide, gamma)
            torch.testing.assert_close(pool(features, guide, gamma), expected, atol=2e-4, rtol=2e-4)


def test_pool_with_a_high_threshold_keeps_features_that_are_unlike():
    torch.manual_seed(0)
    features = torch.randn(1, 4, 3, 3)
    torch.testing.assert_close(pool(features, torch.randn(1, 64, 3, 3), 0.99), features, atol=1e-5, rtol=1e-5)


def test_pool_takes_the_mean_over_positions_of_one_kind():
    guide = torch.zeros(1, 2, 1, 4)
    guide[0, 0, 0, :2] = guide[0, 1, 0, 2:] = 3.0
    features = torch.tensor([1.0, 3.0, 10.0, 20.0]).view(1, 1, 1, 4)
    expected = torch.tensor([2.0, 2.0, 15.0, 15.0]).view(1, 1, 1, 4)
    torch.testing.assert_close(pool(features, guide, 0.2), expected, atol=1e-4, rtol=1e-4)


def test_pool_carries_gradients_to_both():
    features = torch.randn(1, 4, 3, 3, requires_grad=True)
    guide = torch.randn(1, 6, 3, 3, requires_grad=True)
    pool(features, guide, 0.1).sum().backward()
    assert features.grad.abs().sum() > 0 and guide.grad.abs().sum() > 0


def random_graph(count):
    weights = torch.rand(count, count, dtype=torch.float64)
    weights = (weights + weights.T).fill_diagonal_(0)
    root = weights.sum(1).rsqrt()
    return root[:, None] * weights * root


def test_propagation_reaches_the_exact_solution():
    torch.manual_seed(0)
    graph, scores = random_graph(20), torch.randn(20, 3, dtype=torch.float64)
    exact = torch.linalg.solve(torch.eye(20, dtype=torch.float64) - 0.9 * graph, scores)
    found = propagate(lambda x: graph @ x, scores, 0.9, iterations=50, tolerance=1e-12)
    torch.testing.assert_close(found, exact)
    assert not torch.allclose(propagate(lambda x: graph @ x, scores, 0.9, iterations=2), exact, rtol=1e-3)


def test_propagation_without_neighbours_changes_nothing():
    scores = torch.randn(6, 2)
    torch.testing.assert_close(propagate(lambda x: 0 * x, scores, 0.5), scores)


def test_columns_are_solved_one_by_one(monkeypatch):
    """Also one that is zero, and one that is done before the others."""
    torch.manual_seed(0)
    graph, scores = random_graph(12), torch.randn(12, 5, dtype=torch.float64)
    scores[:, 1] = 0
    scores[:, 2] = torch.linalg.eigh(graph).eigenvectors[:, 0]
    together = propagate(lambda x: graph @ x, scores, 0.95)
    monkeypatch.setattr(operators, "_SOLVE_ELEMENTS", 24)
    torch.testing.assert_close(propagate(lambda x: graph @ x, scores, 0.95), together)
    assert together.isfinite().all() and (together[:, 1] == 0).all()
