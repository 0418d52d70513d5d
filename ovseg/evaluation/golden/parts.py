"""Small vectors for single parts, from closed-form inputs: ``gen(shape, a, b)[i] = sin(a * i + b)``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.dense import attention
from ovseg.dense.operators import pool, propagate
from ovseg.dense.pamr import pamr, pamr_affinity
from ovseg.dense.pos_embed import PosEmbedRule, resize_grid
from ovseg.dense.readout import AttentionContext, AttentionFunction, Readout
from ovseg.evaluation.golden.case import Check
from ovseg.evaluation.golden.trident import StoredEncoding
from ovseg.methods.cat_seg.classes import linear_attention
from ovseg.methods.clip_dinoiser.found_training import background_mask
from ovseg.methods.cliptrase import all_self
from ovseg.methods.gem import SelfSelf
from ovseg.methods.lposs.graphs import patch_graph
from ovseg.methods.maskclip import MaskCLIP
from ovseg.methods.naclip import NearKeys
from ovseg.methods.proxyclip import ProxyAttention
from ovseg.methods.resclip.feedback import feedback_map
from ovseg.methods.sclip import SCLIP
from ovseg.methods.trident.aggregate import aggregate
from ovseg.towers.clip_vit import VisionTransformer, ViTConfig
from ovseg.towers.layers import BlockConfig

__all__ = ["PARTS", "check_parts"]

_GRID = (2, 3)


def gen(shape: tuple[int, ...], a: float, b: float) -> Tensor:
    """The generator that the vectors were made with."""
    return torch.sin(a * torch.arange(math.prod(shape), dtype=torch.float64) + b).view(shape)


class _TokenTower(VisionTransformer):
    """The one-block tower of the vectors; its "image" is the tokens that enter the block."""

    def __init__(self) -> None:
        blocks = BlockConfig(8, 1, 2, 32, "quick_gelu")
        super().__init__(ViTConfig(blocks, 1, _GRID, 8))
        block = self.blocks[0]
        values = {
            block.attn.in_proj_weight: gen((24, 8), 0.37, 0.1),
            block.attn.in_proj_bias: gen((24,), 0.53, 0.2),
            block.attn.out_proj.weight: gen((8, 8), 0.29, 0.4),
            block.attn.out_proj.bias: gen((8,), 0.41, 0.6),
            block.mlp.c_fc.weight: gen((32, 8), 0.31, 0.7),
            block.mlp.c_fc.bias: gen((32,), 0.47, 0.8),
            block.mlp.c_proj.weight: gen((8, 32), 0.23, 0.9),
            block.mlp.c_proj.bias: gen((8,), 0.59, 1.0),
            block.ln_1.weight: 1 + 0.1 * gen((8,), 0.61, 1.1),
            block.ln_1.bias: 0.1 * gen((8,), 0.67, 1.2),
            block.ln_2.weight: 1 + 0.1 * gen((8,), 0.73, 1.3),
            block.ln_2.bias: 0.1 * gen((8,), 0.79, 1.4),
        }
        for parameter, value in values.items():
            parameter.data = value

    def grid_of(self, image: Tensor) -> tuple[int, int]:
        return _GRID

    def embed(self, image: Tensor, rule: PosEmbedRule = "bicubic_antialias") -> Tensor:
        return image

    def read(self, readout: Readout) -> Tensor:
        """(7, 1, 8): the class token and the patches after the rewritten block."""
        tokens = gen((7, 1, 8), 0.71, 0.3).transpose(0, 1)
        features = self.forward_dense(tokens, readout)
        assert features.cls is not None
        return torch.cat([features.cls[:, None], features.patches.flatten(2).transpose(1, 2)], 1).transpose(
            0, 1
        )


def _attention(function: AttentionFunction) -> Tensor:
    return _TokenTower().read(Readout(function, residual="none", mlp=False, tail=False))


def _readout(residual: str) -> Tensor:
    readout = MaskCLIP().readout
    return _TokenTower().read(Readout(readout.attention, residual, mlp=True, tail=False))  # type: ignore[arg-type]


def _pamr() -> Tensor:
    affinity = pamr_affinity(gen((3, 6, 7), 0.37, 0.1), (1, 2))
    return pamr(0.5 + 0.5 * gen((2, 6, 7), 0.53, 0.2), affinity, (1, 2), 2)[None]


def _proxy_rows() -> Tensor:
    features = gen((1, 5, 4, 6), 0.83, 0.15)
    ctx = AttentionContext((4, 6), 1.0, 0, extra={"features": features})
    weights, _ = ProxyAttention()(None, None, torch.eye(24, dtype=torch.float64)[None, None], ctx)
    return weights[:, 0].amax(dim=-1)


def _proxy_attention() -> Tensor:
    tokens = gen((7, 1, 8), 0.71, 0.3).transpose(0, 1)
    readout = Readout(ProxyAttention(), residual="none", mlp=False, tail=False)
    features = _TokenTower().forward_dense(tokens, readout, {"features": gen((1, 5, 4, 6), 0.83, 0.15)})
    return features.patches.flatten(2).permute(2, 0, 1)


def _dinoiser_pool() -> Tensor:
    features, guide = gen((1, 4, 2, 3), 0.45, 0.2), gen((1, 12, 6), 0.33, 0.1)
    return pool(features, guide.unflatten(2, _GRID), 0.2).flatten(2)


def _lposs_exact() -> Tensor:
    features = F.normalize(gen((6, 5), 0.61, 0.3), dim=1)
    centres = torch.tensor([[y, x] for y in (8, 24) for x in (8, 24, 40)], dtype=torch.float64)
    graph = patch_graph(features, centres, neighbours=4, gamma=3.0, sigma=0.01, power=1.0)
    return propagate(graph, gen((6, 3), 0.27, 0.5), 0.95, iterations=100, tolerance=1e-12)


def _linear_attention() -> Tensor:
    q, k, v = (gen((1, 4, 2, 3), a, b).transpose(1, 2) for a, b in ((0.5, 0.1), (0.6, 0.2), (0.7, 0.3)))
    return linear_attention(q, k, v).transpose(1, 2)


def _resclip_sfr_map() -> Tensor:
    labels = torch.tensor([[[0, 0, 1, 1], [0, 1, 1, 2], [2, 2, 1, 0]]])
    return F.pad(feedback_map(labels, 5.0, "shortened", "flat"), (1, 0, 1, 0))


def _trident_affinity() -> Tensor:
    attention = gen((1, 2, 6, 6), 0.57, 0.3).softmax(dim=-1)[0]
    encoding = StoredEncoding(_GRID, gen((1, 2, 2, 3, 4), 0.91, 0.2)[0].flatten(1, 2), attention)
    return aggregate(torch.eye(6, dtype=torch.float64), encoding, 1.2, None)[None, None]


def _found() -> Tensor:
    attention = gen((1, 2, 7, 7), 0.63, 0.1).softmax(dim=-1)[:, :, 0, 1:]
    return background_mask(attention, gen((1, 7, 8), 0.39, 0.2)[:, 1:]).double().view(1, 2, 3)


def _positions(rule: PosEmbedRule) -> Tensor:
    return resize_grid(gen((1, 1, 3, 3), 0.9, 0.1), (5, 7), rule)


PARTS: dict[str, tuple[Callable[[], Tensor], float]] = {
    "qk_attention_out": (lambda: _attention(attention.query_key), 1e-6),
    "sclip_attention_out": (lambda: _attention(attention.correlative), 1e-6),
    "sclip_block_out": (lambda: _TokenTower().read(replace(SCLIP().readout, tail=False)), 1e-6),
    "naclip_attention_out": (lambda: _attention(NearKeys(5.0)), 1e-6),
    "naclip_omega": (
        lambda: attention.gaussian_bias(AttentionContext(_GRID, 1.0), 5.0, torch.zeros(1)),
        1e-6,
    ),
    "cliptrase_attention_out": (lambda: _attention(all_self), 1e-6),
    "resclip_sfr_map": (_resclip_sfr_map, 1e-6),
    "gem_attention_out": (lambda: _attention(SelfSelf()), 1e-6),
    "clearclip_attention_out": (lambda: _attention(attention.query_query), 1e-6),
    "maskclip_readout": (lambda: _readout("own"), 1e-6),
    "catseg_readout": (lambda: _readout("cls"), 1e-5),  # the reference's LayerNorm is float32
    "pamr": (_pamr, 1e-6),
    "found_background_mask": (_found, 0.0),
    "proxyclip_affinity_rowmax": (_proxy_rows, 1e-6),
    "proxyclip_attention_out": (_proxy_attention, 1e-6),
    "lposs_exact": (_lposs_exact, 1e-6),
    "trident_sam_affinity": (_trident_affinity, 1e-6),
    "dinoiser_pool": (_dinoiser_pool, 1e-6),
    "catseg_linear_attention": (_linear_attention, 1e-6),
    "pos_resize_A": (lambda: _positions("bicubic_offset"), 1e-6),
    "pos_resize_B": (lambda: _positions("bicubic"), 1e-6),
    "pos_resize_C": (lambda: _positions("bicubic_antialias"), 1e-6),
}
"""What we have, by the vectors' names: the computation and the tolerance."""


@torch.no_grad()
def check_parts(path: Path) -> tuple[list[Check], list[str]]:
    """Checks the vectors of a file.

    Returns:
        The checks, and the names of vectors for which there is no part yet.

    Raises:
        ValueError: The file cannot be read.
    """
    try:
        vectors = json.loads(path.read_text("utf-8"))
        golden = {
            name: torch.tensor(v["values"], dtype=torch.float64).view(v["shape"])
            for name, v in vectors.items()
        }
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} holds no vectors ({type(error).__name__}: {error})") from error
    checks = []
    for name in sorted(PARTS.keys() & golden.keys()):
        compute, tolerance = PARTS[name]
        difference = float((compute() - golden[name]).abs().max())
        checks.append(Check("parts", name, "values", difference, tolerance))
    return checks, sorted(golden.keys() - PARTS.keys())
