"""Every row of the benchmark runs, with small towers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_sam import small_sam

from ovseg.benchmark import training_free
from ovseg.benchmark.training_free import ROWS, run
from ovseg.towers.auxiliary import auxiliary_info
from ovseg.towers.dino import SelfSupervisedViT, create_vit
from ovseg.towers.sam import SamTower


def small_tower(name):
    info = auxiliary_info(name)
    if info.family == "sam":
        return SamTower(small_sam(), info).eval()
    options = {"embed_dim": 48, "num_heads": 3, "depth": 2, "img_size": 64, "patch_size": 16}
    return SelfSupervisedViT(create_vit(replace(info, options=options)), info).eval()


def lines_of(row, tiny_clip, monkeypatch):
    patches = {"_SIZE": (48, 64), "_WORDS": 4, "_clip": lambda: tiny_clip, "_auxiliary": small_tower}
    for name, value in patches.items():
        monkeypatch.setattr(training_free, name, value)
    few = replace(training_free._METHODS[row], turns=1)
    monkeypatch.setitem(training_free._METHODS, row, few)
    return list(run([row]))


@pytest.mark.parametrize(
    "row",
    [
        # the graph over pixels takes seconds, whatever the towers
        pytest.param(row, marks=[pytest.mark.slow] if row == "lposs_plus" else [])
        for row in ROWS
        if ":" not in row
    ],
)
def test_every_method_is_measured(row, tiny_clip, monkeypatch):
    lines = lines_of(row, tiny_clip, monkeypatch)
    part = training_free._METHODS[row].part
    names = [(line["name"], line.get("without")) for line in lines]
    expected = [("training_free.readout", None), ("training_free.outside", None)]
    assert names == expected + ([("training_free.outside", part)] if part else [])
    assert all(line["row"] == row and line["ratio"] > 0 and line["windows"] > 0 for line in lines)


@pytest.mark.slow
def test_scores_become_the_labels_of_the_naive_loop_in_less_memory():
    scores, memory = run(["448:224/112"])
    assert scores["difference"] == 0
    assert memory["ours_mb"] < memory["reference_mb"]
