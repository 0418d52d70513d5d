"""Linear layers: one result, whichever library computes it."""

from __future__ import annotations

import time

import pytest
import torch
import torch.nn.functional as F

from ovseg.towers.linear import linear


@pytest.mark.parametrize("shape", [(1, 8), (3, 5, 8), (2, 40, 8), (100, 8)])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_f_linear(shape, bias):
    x, weight, b = torch.randn(*shape), torch.randn(6, 8), torch.randn(6) if bias else None
    expected = F.linear(x, weight, b)
    with torch.no_grad():
        torch.testing.assert_close(linear(x, weight, b), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(linear(x, weight, b), expected)


def test_strides_and_other_types():
    x, weight = torch.randn(40, 20, 8), torch.randn(8, 6)
    with torch.inference_mode():
        torch.testing.assert_close(linear(x.transpose(0, 1), weight.T), F.linear(x.transpose(0, 1), weight.T))
        double = linear(x.double(), weight.T.double())
        assert double.dtype == torch.float64
        assert linear(x.bfloat16(), weight.T.bfloat16()).dtype == torch.bfloat16


def test_gradients_flow():
    x, weight = torch.randn(40, 8, requires_grad=True), torch.randn(6, 8, requires_grad=True)
    linear(x, weight).square().sum().backward()
    assert x.grad is not None and weight.grad is not None


def test_part_of_a_wider_weight_costs_no_more_than_a_weight():
    x, wide = torch.randn(256, 128), torch.randn(64, 256)

    def cost(weight):
        start = time.process_time()
        linear(x, weight)
        return time.process_time() - start

    with torch.inference_mode():
        whole, part = wide[:, :128].contiguous(), wide[:, :128]
        torch.testing.assert_close(linear(x, part), linear(x, whole))
        times = [(cost(part), cost(whole)) for _ in range(3)]
    assert min(a for a, _ in times) < 30 * min(b for _, b in times) + 0.01  # oneDNN's own way: 0.4 s
