"""Which weights of CLIP are tuned, and how fast (section 3.4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from ovseg.towers.clip import CLIP
from ovseg.towers.layers import Attention, Block

if TYPE_CHECKING:
    from ovseg.methods.cat_seg.model import CATSegModel

__all__ = [
    "FineTune",
    "PromptedAttention",
    "SplitAttention",
    "add_prompts",
    "parameter_groups",
    "set_trainable",
]

FineTune = Literal["attention", "full", "prompt", "none"]


class SplitAttention(Attention):
    """Attention with one weight for each of q, k and v, so that they can be trained apart; the bias is joint.

    Args:
        attention: Whose values it takes.
    """

    def __init__(self, attention: Attention) -> None:
        nn.Module.__init__(self)
        self.heads = attention.heads
        q, k, v = attention.in_proj_weight.detach().chunk(3)
        self.q_proj_weight = nn.Parameter(q.clone())
        self.k_proj_weight = nn.Parameter(k.clone())
        self.v_proj_weight = nn.Parameter(v.clone())
        self.in_proj_bias = attention.in_proj_bias
        self.out_proj = attention.out_proj

    @property
    def in_proj_weight(self) -> Tensor:  # type: ignore[override]
        """(3 D, D), joined."""
        return torch.cat([self.q_proj_weight, self.k_proj_weight, self.v_proj_weight])


class PromptedAttention(Attention):
    """Attention with learned tokens beside those of the image (visual prompt tuning).

    The reference puts the tokens in before each block and takes them out after it. So nothing but their keys
    and values has an effect, and nothing else is computed.

    Args:
        block: Whose attention and first LayerNorm it takes.
        tokens: Number of tokens.
    """

    def __init__(self, block: Block, tokens: int) -> None:
        nn.Module.__init__(self)
        attention = block.attn
        self.heads = attention.heads
        self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = attention.out_proj
        width = attention.in_proj_weight.shape[1]
        self.prompt = nn.Parameter(nn.init.xavier_uniform_(attention.in_proj_weight.new_empty(tokens, width)))
        self._norm = (block.ln_1,)  # in a tuple: it is the block's submodule

    def qkv(self, x: Tensor, inputs: str = "qkv") -> tuple[Tensor | None, ...]:
        """As ``Attention.qkv``; keys, and values where keys are asked for, have the prompt's behind them."""
        q, k, v = super().qkv(x, inputs)
        if k is None or v is None:
            return q, k, v
        _, prompt_k, prompt_v = super().qkv(self._norm[0](self.prompt.to(x.dtype))[None], "kv")
        both = ((k, prompt_k), (v, prompt_v))
        return q, *(torch.cat([own, new.expand(len(own), -1, -1, -1)], dim=2) for own, new in both)  # type: ignore[union-attr]


def add_prompts(clip: CLIP, tokens: int) -> None:
    """Gives every block of the image tower learned prompt tokens, in place."""
    for block in clip.visual.transformer.resblocks:  # type: ignore[union-attr]
        block.attn = PromptedAttention(block, tokens)


def set_trainable(model: CATSegModel, mode: FineTune) -> None:
    """Chooses the parameters of a ``CATSegModel`` that are trained, in place. The head always is.

    Args:
        model: The model.
        mode: ``attention``: the query and value weights of the blocks of both towers (not their biases), as
            published; the projections are split for it. ``full``: all of these blocks. ``prompt``: only the
            prompt tokens of the image tower. ``none``: CLIP stays as it is.

    Raises:
        ValueError: The mode is unknown, or does not fit a model with or without prompts.
    """
    if mode not in get_args(FineTune):
        raise ValueError(f"unknown fine-tuning mode {mode!r}; one of {', '.join(get_args(FineTune))}")
    if mode == "prompt" and not model.method.prompts:
        raise ValueError("the model has no prompt tokens; build it with prompts=4, say")
    if mode == "attention" and model.method.prompts:
        raise ValueError("mode 'attention' leaves prompt tokens as they are; build the model without prompts")
    model.requires_grad_(True)
    model.clip.requires_grad_(False)
    for block in _blocks(model.clip):
        if mode == "attention":
            if not isinstance(block.attn, SplitAttention):
                block.attn = SplitAttention(block.attn).requires_grad_(False)
            for weight in (block.attn.q_proj_weight, block.attn.v_proj_weight):
                weight.requires_grad_(True)
        elif mode == "full":
            block.requires_grad_(True)
        elif mode == "prompt" and isinstance(block.attn, PromptedAttention):
            block.attn.prompt.requires_grad_(True)


def _blocks(clip: CLIP) -> Iterator[Block]:
    for tower in (clip.visual, clip.text):
        yield from tower.transformer.resblocks  # type: ignore[misc, union-attr]


def parameter_groups(
    model: nn.Module, lr: float = 2e-4, weight_decay: float = 1e-4, clip_factor: float = 0.01
) -> list[dict[str, Any]]:
    """Groups of the trained parameters for an optimiser.

    Args:
        model: A ``CATSegModel`` after ``set_trainable``.
        lr: Rate of the head; the default is the published one.
        weight_decay: Of all but norms.
        clip_factor: Rate of CLIP's parameters as a share of ``lr``.

    Returns:
        For each parameter a dict of ``params``, ``name``, ``lr`` and ``weight_decay``.
    """
    norms = (nn.LayerNorm, nn.GroupNorm)
    groups = []
    for owner_name, owner in model.named_modules():
        for name, parameter in owner.named_parameters(owner_name, recurse=False):
            if parameter.requires_grad:
                groups.append(
                    {
                        "params": [parameter],
                        "name": name,
                        "lr": lr * (clip_factor if name.startswith("clip.") else 1.0),
                        "weight_decay": 0.0 if isinstance(owner, norms) else weight_decay,
                    }
                )
    return groups
