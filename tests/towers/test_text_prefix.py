from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ovseg.towers import text_prefix
from ovseg.towers.layers import BlockConfig
from ovseg.towers.text import TextConfig, TextTransformer
from ovseg.towers.text_prefix import encode_prompts

_END = 19
_CONFIG = TextConfig(BlockConfig(16, 3, 2, 32), vocab_size=20, context_length=8, output_dim=12)


def _tower(**changes) -> TextTransformer:
    torch.manual_seed(0)
    tower = TextTransformer(replace(_CONFIG, **changes)).eval()
    with torch.no_grad():
        for value in tower.parameters():
            value.copy_(torch.randn_like(value) * 0.5)
    return tower


def _plain(tower: TextTransformer, prompts: list[list[int]]) -> torch.Tensor:
    tokens = torch.zeros(len(prompts), tower.config.context_length, dtype=torch.long)
    for row, prompt in zip(tokens, prompts):
        row[: len(prompt)] = torch.tensor(prompt)
    return tower(tokens)


def _difference(tower: TextTransformer, prompts: list[list[int]]) -> float:
    with torch.no_grad():
        ours, plain = encode_prompts(tower, prompts), _plain(tower, prompts)
    return float((F.normalize(ours, dim=-1) - F.normalize(plain, dim=-1)).abs().max())


# Few distinct ids, so that prompts share beginnings, repeat and contain one another.
_prompt = st.lists(st.integers(1, 3), max_size=6).map(lambda body: [0, *body, _END])


@settings(max_examples=40, deadline=None)
@given(st.lists(_prompt, min_size=1, max_size=12))
def test_equals_the_plain_forward(prompts):
    assert _difference(_tower(), prompts) < 2e-6


@settings(max_examples=20, deadline=None)
@given(st.lists(_prompt, min_size=1, max_size=12), st.integers(1, 20))
def test_equals_the_plain_forward_in_chunks_of_any_size(prompts, nodes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_prefix, "_BUDGET", nodes * 16)
        assert _difference(_tower(), prompts) < 2e-6


@pytest.mark.parametrize(
    "changes",
    [
        {"pool": "eos", "eos_id": 2},
        {"pool": "last"},
        {"pool": "last", "causal": False},
        {"causal": False},
        {"blocks": replace(_CONFIG.blocks, activation="quick_gelu", layer_scale=True)},
        {"blocks": replace(_CONFIG.blocks, layers=1)},
    ],
    ids=str,
)
def test_equals_the_plain_forward_for_every_kind_of_tower(changes):
    prompts = [[0, 1, 2, _END], [0, 1, 3, 3, _END], [0, 1, 2, 3, 2, _END], [0, _END], [5], [0, 1, 2, _END]]
    assert _difference(_tower(**changes), prompts) < 2e-6


def test_each_shared_prefix_is_computed_once():
    prompts = [(0, 1, 2, 3, word, _END) for word in range(4, 14)]
    tree = text_prefix._tree(prompts)
    assert len(tree.tokens) == 4 + 10 * 2


def test_gradients_are_those_of_the_plain_forward():
    prompts = [[0, 1, 2, _END], [0, 1, 3, _END], [0, 1, 2, 2, _END]]
    weight = torch.randn(3, 12, generator=torch.Generator().manual_seed(1))
    gradients = []
    for encode in (encode_prompts, _plain):
        tower = _tower()
        (encode(tower, prompts) * weight).sum().backward()
        gradients.append({name: p.grad for name, p in tower.named_parameters()})
    for name, expected in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], expected, rtol=1e-4, atol=1e-5, msg=name)


def test_bfloat16():
    tower = _tower().to(torch.bfloat16)
    out = encode_prompts(tower, [[0, 1, _END], [0, 2, _END]])
    assert out.dtype == torch.bfloat16
    assert bool(out.isfinite().all())


def test_no_prompts():
    assert encode_prompts(_tower(), []).shape == (0, 12)


def test_a_prompt_over_the_context_length_raises():
    with pytest.raises(ValueError, match="9 tokens, the tower takes 8"):
        encode_prompts(_tower(), [[0, *[1] * 7, _END]])
