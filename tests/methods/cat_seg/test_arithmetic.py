"""The hand count of multiply-adds that the benchmark reports, against what is carried out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import ovseg.benchmark.cat_seg as benchmark


@pytest.fixture(autouse=True)
def shorter_padding(monkeypatch):
    """The published sizes but for the padding, which would take seconds."""
    monkeypatch.setattr(benchmark, "_CONFIG", replace(benchmark._CONFIG, pad_len=6))


def counted(run, inputs, monkeypatch):
    """Matrix products and convolutions; the fused attention, which torch does not count, as two products."""

    def attention(q, k, v):
        return (q @ k.transpose(-1, -2)).softmax(-1) @ v

    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    monkeypatch.setattr("ovseg.towers.linear._HAS_ONEDNN", False)  # the counter does not know its operator
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run(*inputs)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("classes", [3, 8])
def test_count_by_hand(classes, monkeypatch):
    head, inputs = benchmark._head(), benchmark._inputs(classes)
    ours = counted(head, inputs, monkeypatch)
    assert ours == pytest.approx(benchmark.multiply_adds(classes), rel=1e-3)  # padding token, text: once
    plain = counted(benchmark._plain(head), inputs, monkeypatch)
    assert plain == pytest.approx(benchmark.multiply_adds(classes, "none"), rel=1e-3)


def test_counts_at_the_published_size(monkeypatch):
    monkeypatch.undo()
    plain = [round(2e-9 * benchmark.multiply_adds(k, "none")) for k in (20, 150, 847)]
    assert plain == [179, 488, 740]  # GFLOP of the authors' code, measured
    for k in (20, 150, 847):
        assert benchmark.multiply_adds(k) < 0.9 * benchmark.multiply_adds(k, "listed")


def test_rows_are_measured_singly(monkeypatch):
    monkeypatch.setattr(benchmark, "_forward", lambda classes: {"name": "forward", "classes": classes})
    monkeypatch.setattr(benchmark, "_training", lambda classes: {"name": "training", "classes": classes})
    monkeypatch.setattr(benchmark, "peak_memory", lambda step, classes: classes << 20)
    assert [found["classes"] for found in benchmark.run()] == [20, 150, 847, 847, 171]
    assert [found["classes"] for found in benchmark.run(["forward150"])] == [150]
    assert [found["name"] for found in benchmark.run(["training"])] == ["training"]
