"""Towers on tape: a model gives the same scores when they are played back, and none of them runs."""

from __future__ import annotations

import pytest
import torch

import ovseg
from ovseg.benchmark.replay import Replay, towers_of
from ovseg.dense.view import View
from ovseg.dense.windows import slide
from ovseg.vocab.text_bank import TextBank
from ovseg.vocab.vocabulary import Vocabulary


@pytest.mark.parametrize("method", ["sclip", "cliptrase", "resclip"])
def test_played_back_towers_do_not_run(method, tiny_clip):
    torch.manual_seed(0)
    model = ovseg.build(method, tiny_clip).model
    vocabulary = Vocabulary.of(["a", "b", "c"])
    rows = torch.nn.functional.normalize(torch.randn(3, 1, 32), dim=-1)
    bank = TextBank(rows, True, torch.arange(3), vocabulary)
    crop = None if method == "cliptrase" else 32
    view = View(torch.rand(3, 48, 64), slide((48, 64), crop, 16), (48, 64), (0.5,) * 3, (0.25,) * 3)
    with torch.inference_mode():
        expected = model.score_field(view, bank).full()
        (tower,) = towers_of(model)
        tower.record()
        assert torch.equal(model.score_field(view, bank).full(), expected)
        assert tower.images == len(view.grid)
        runs = []
        hook = model.clip.visual.blocks[0].register_forward_hook(lambda *_: runs.append(1))
        tower.play()
        assert torch.equal(model.score_field(view, bank).full(), expected) and not runs
        tower.stop()
        hook.remove()
        tower.bare()
        tower.again()


def test_a_recorded_function_gives_its_answers_in_order():
    class Counter:
        def count(self, text: str) -> int:
            return len(text)

    counter = Counter()
    replay = Replay(counter, "count")
    replay.record()
    assert [counter.count("a"), counter.count("bcd")] == [1, 3]
    for _ in range(2):
        replay.play()
        assert [counter.count("x"), counter.count("x")] == [1, 3]
    replay.stop()
    assert counter.count("xy") == 2
    assert replay.images == 4
