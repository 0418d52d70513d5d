"""Text embeddings of many prompts at once, each common beginning computed once.

The text tower is causal: the state of a token depends on the tokens up to it and on nothing after. So prompts
that begin alike share the states of their common beginning, and what follows the end of text is never needed.
The prompts of a vocabulary are a tree of tokens ("a photo of a" -> cat | dog -> "."), and each node of the
tree is computed once. 80 templates x 20 words are 123,200 padded positions, but 5,600 nodes. The arithmetic
per node is that of the plain forward; only the order of summation inside matrix products differs (1e-7 on
unit rows).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.towers.layers import Block
from ovseg.towers.text import TextTransformer

__all__ = ["encode_prompts"]

_Prompt = tuple[int, ...]
_BUDGET = 2**22  # nodes x width per chunk: some 350 MB of float32 activations


def encode_prompts(tower: TextTransformer, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Text embeddings (B, C) of token sequences, not normalised; equal to ``tower(padded tokens)``.

    Memory is bounded for any number of prompts (a few hundred MB), unless gradients are recorded. Towers that
    are not causal or that read out the last position run the plain forward, in batches.

    Args:
        tower: The text tower; gradients flow to it where they are enabled.
        prompts: B non-empty sequences of token ids, without padding.

    Raises:
        ValueError: A sequence is longer than the tower's context length.
    """
    config = tower.config
    longest = max(map(len, prompts), default=0)
    if longest > config.context_length:
        raise ValueError(
            f"a prompt has {longest} tokens, the tower takes {config.context_length}; shorten it"
        )
    if not prompts:
        return tower.text_projection.new_zeros(0, config.output_dim)
    limit = max(1, _BUDGET // config.blocks.width)
    if not config.causal or config.pool == "last":
        return _encode_padded(tower, prompts, limit)
    cut = [tuple(prompt[: _end(tower, prompt) + 1]) for prompt in prompts]
    distinct = sorted(set(cut))
    rows = torch.cat([_encode_tree(tower, _tree(chunk)) for chunk in _chunks(distinct, limit)])
    place = {prompt: i for i, prompt in enumerate(distinct)}
    return rows[torch.tensor([place[prompt] for prompt in cut], device=rows.device)]


def _encode_padded(tower: TextTransformer, prompts: Sequence[Sequence[int]], limit: int) -> Tensor:
    length = tower.config.context_length
    tokens = torch.zeros(len(prompts), length, dtype=torch.long)
    for row, prompt in zip(tokens, prompts):
        row[: len(prompt)] = torch.tensor(prompt)
    batches = tokens.to(tower.text_projection.device).split(max(1, limit // length))
    return torch.cat([tower(batch) for batch in batches])


def _end(tower: TextTransformer, prompt: Sequence[int]) -> int:
    """The position that is read out, as ``TextTransformer.end_positions`` finds it in a padded row."""
    if tower.config.pool == "argmax":
        return prompt.index(max(prompt))
    return prompt.index(tower.config.eos_id) if tower.config.eos_id in prompt else 0


def _common(a: _Prompt, b: _Prompt) -> int:
    """Length of the common beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def _chunks(prompts: Sequence[_Prompt], limit: int) -> Iterator[Sequence[_Prompt]]:
    """Cuts sorted prompts into runs of at most ``limit`` tree nodes (but one prompt at least)."""
    start, nodes = 0, 0
    for i, prompt in enumerate(prompts):
        new = len(prompt) - (_common(prompts[i - 1], prompt) if i > start else 0)
        if i > start and nodes + new > limit:
            yield prompts[start:i]
            start, nodes, new = i, 0, len(prompt)
        nodes += new
    yield prompts[start:]


@dataclass(frozen=True)
class _Group:
    """G prompts of one length L that add S nodes each to the tree of the prompts before them.

    Attributes:
        start: Their first new node; nodes ``start`` to ``start + G S`` are theirs, prompt after prompt.
        new: S.
        paths: (G, L) the node at each position of each prompt.
    """

    start: int
    new: int
    paths: Tensor

    def own(self, rows: Tensor) -> Tensor:
        """(N, D) rows of all nodes to the (G, S, D) of the group's own."""
        return rows[self.start : self.start + self.paths.shape[0] * self.new].unflatten(0, (-1, self.new))


@dataclass(frozen=True)
class _Tree:
    """The token tree of B sorted prompts; its N nodes are numbered group after group."""

    tokens: Tensor  # (N,) ids
    positions: Tensor  # (N,)
    groups: list[_Group]
    rank: Tensor  # (B,) where each prompt comes if they are counted group after group


def _tree(prompts: Sequence[_Prompt]) -> _Tree:
    shared = [0, *(_common(a, b) for a, b in pairwise(prompts))]
    members: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, prompt in enumerate(prompts):
        members[len(prompt) - shared[i], len(prompt)].append(i)
    first, count = [0] * len(prompts), 0  # the first new node of each prompt
    for (new, _), indices in members.items():
        for i in indices:
            first[i] = count
            count += new
    tokens, positions = [0] * count, [0] * count
    paths: list[list[int]] = [[]]
    for prompt, old, node in zip(prompts, shared, first):
        end = node + len(prompt) - old
        paths.append([*paths[-1][:old], *range(node, end)])
        tokens[node:end] = prompt[old:]
        positions[node:end] = range(old, len(prompt))
    groups = [
        _Group(first[indices[0]], new, torch.tensor([paths[i + 1] for i in indices]))
        for (new, _), indices in members.items()
    ]
    rank = torch.tensor([i for indices in members.values() for i in indices]).argsort()
    return _Tree(torch.tensor(tokens), torch.tensor(positions), groups, rank)


def _encode_tree(tower: TextTransformer, tree: _Tree) -> Tensor:
    """Embeddings (B, C) of the prompts of a tree, in their order."""
    device = tower.text_projection.device
    groups = [_Group(group.start, group.new, group.paths.to(device)) for group in tree.groups]
    x = tower.token_embedding(tree.tokens.to(device))
    x = x + tower.positional_embedding[tree.positions.to(device)].to(x.dtype)
    *blocks, last = cast(list[Block], list(tower.transformer.resblocks))
    for block in blocks:
        x = x + _attend(block, x, groups)
        x = x + block.feed_forward(x)
    # The last block's output is read at the last node of each prompt only.
    x = torch.cat([group.own(x)[:, -1] for group in groups]) + _attend(last, x, groups, only_last=True)
    x = x + last.feed_forward(x)
    return tower.ln_final(x[tree.rank.to(device)]) @ tower.text_projection


def _attend(block: Block, x: Tensor, groups: Sequence[_Group], only_last: bool = False) -> Tensor:
    """The attention branch over tree nodes: each sees the nodes on its path.

    Args:
        block: Whose ``attend`` this is on sequences.
        x: (N, D) all nodes.
        groups: Of the tree.
        only_last: Answer only for the last node of each prompt.

    Returns:
        (N, D), or (B, D) group after group.
    """
    attn, width = block.attn, x.shape[-1]
    qkv = F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias)  # (N, 3 D)
    mixed = []
    for group in groups:
        q = group.own(qkv[:, :width])[:, -1 if only_last else 0 :]  # (G, S or 1, D)
        k, v = qkv[:, width:][group.paths].chunk(2, dim=-1)  # (G, L, D)
        new, length = q.shape[1], k.shape[1]
        visible = None  # the last node sees the whole path
        if new > 1:
            visible = torch.ones(new, length, dtype=torch.bool, device=x.device).tril(length - new)
        out = F.scaled_dot_product_attention(attn.split(q), attn.split(k), attn.split(v), attn_mask=visible)
        mixed.append(out.transpose(1, 2).reshape(-1, width))  # (G S, D)
    return block.ls_1(attn.out_proj(torch.cat(mixed)))
