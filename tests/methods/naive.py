"""The last block of a ViT by hand, head by head, for tests."""

from __future__ import annotations

import torch


def last_block_parts(visual, image, rule):
    """Tokens x that enter the last block, and (q, k, v) as lists of (N, d) per head, for one image."""
    tokens = visual.embed(image[None], rule)
    *blocks, last = visual.blocks
    for block in blocks:
        tokens = block(tokens)
    normed, attn = last.ln_1(tokens)[0], last.attn
    joint = normed @ attn.in_proj_weight.T + attn.in_proj_bias
    q, k, v = (part.chunk(attn.heads, dim=1) for part in joint.chunk(3, dim=1))
    return tokens[0], (q, k, v)


def mix(visual, weights, values):
    """Each head's (N, N) weights applied to its values, heads joined, projected: (N, D)."""
    joined = torch.cat([w @ v for w, v in zip(weights, values)], dim=1)
    return visual.blocks[-1].attn.out_proj(joined)


def soft(a, b):
    """softmax(a b^T / sqrt d)."""
    return (a @ b.T / a.shape[1] ** 0.5).softmax(dim=1)


def grid(tokens, visual, size):
    """Patches (1, C, h, w) of (N, D) tokens in the joint space."""
    joint = visual.ln_post(tokens) @ visual.proj
    return joint[1:].T.reshape(1, -1, *size)
