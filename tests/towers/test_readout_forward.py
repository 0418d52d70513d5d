"""Dense forwards of the ViT against a plain re-computation with open_clip's modules."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from open_clip_models import cut_config, random_tokens, reference

from ovseg.dense.attention import identity, query_query, uses
from ovseg.dense.features import DenseFeatures
from ovseg.dense.readout import Readout
from ovseg.towers.clip import CLIP, architecture
from ovseg.towers.converters import convert_open_clip

DEPTH, GRID, PATCH = 4, (2, 3), 16
TOLERANCE = {"atol": 2e-5, "rtol": 1e-5}


@pytest.fixture(scope="module", params=["ViT-S-16", "ViT-M-16-alt"])
def models(request):
    cfg = cut_config(request.param, DEPTH)
    cfg["vision_cfg"]["image_size"] = (GRID[0] * PATCH, GRID[1] * PATCH)
    theirs = reference(cfg)
    ours = CLIP(architecture(cfg)).eval()
    ours.load_state_dict(convert_open_clip(theirs.state_dict()))
    return theirs.visual, ours.visual


@pytest.fixture(scope="module")
def image():
    return torch.randn(2, 3, GRID[0] * PATCH + 5, GRID[1] * PATCH + 9)


class Naive:
    """open_clip's tower, one step after the other, with its own modules."""

    def __init__(self, visual, image):
        self.visual = visual
        self.blocks = list(visual.transformer.resblocks)
        x = visual.conv1(image).flatten(2).transpose(1, 2)
        cls = visual.class_embedding.expand(len(x), 1, -1)
        self.start = visual.ln_pre(torch.cat([cls, x], 1) + visual.positional_embedding)

    def plain(self, x, until):
        for block in self.blocks[:until]:
            x = block(x)
        return x

    def qkv(self, block, x):
        parts = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, -1)
        heads = block.attn.num_heads
        return [p.unflatten(-1, (heads, -1)).transpose(1, 2) for p in parts]

    def branch(self, block, x, kind):
        """Attention output: kind "qk", "qq" or "v" (identity)."""
        q, k, v = self.qkv(block, x)
        if kind != "v":
            other = k if kind == "qk" else q
            v = (q @ other.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v
        return block.ls_1(block.attn.out_proj(v.transpose(1, 2).flatten(2)))

    def mlp(self, block, x):
        return block.ls_2(block.mlp(block.ln_2(x)))

    def tail(self, x):
        return self.visual.ln_post(x) @ self.visual.proj


def as_map(tokens: torch.Tensor) -> torch.Tensor:
    return tokens.transpose(1, 2).unflatten(2, GRID)


@torch.no_grad()
@pytest.mark.parametrize("mlp", [True, False])
@pytest.mark.parametrize("residual", ["own", "cls", "none"])
@pytest.mark.parametrize(("attention", "kind"), [(query_query, "qq"), (identity, "v")])
def test_residual_and_mlp_of_the_last_block(models, image, attention, kind, residual, mlp):
    theirs, ours = models
    naive = Naive(theirs, image)
    x, last = naive.plain(naive.start, DEPTH - 1), naive.blocks[-1]
    out = naive.branch(last, x, kind)
    out = out + {"own": x, "cls": x[:, :1], "none": 0}[residual]
    out = naive.tail(out + naive.mlp(last, out) if mlp else out)

    dense = ours.forward_dense(image, Readout(attention, residual=residual, mlp=mlp))
    torch.testing.assert_close(dense.patches, as_map(out[:, 1:]), **TOLERANCE)
    torch.testing.assert_close(dense.cls, out[:, 0], **TOLERANCE)
    assert (dense.grid, dense.stride, dense.space) == (GRID, PATCH, "joint")


@torch.no_grad()
@pytest.mark.parametrize("last_blocks", [1, 2, 4])
def test_in_place_each_rewritten_block_feeds_the_next(models, image, last_blocks):
    theirs, ours = models
    naive = Naive(theirs, image)
    x = naive.plain(naive.start, DEPTH - last_blocks)
    for block in naive.blocks[DEPTH - last_blocks :]:
        x = x + naive.branch(block, x, "qq")
        x = x + naive.mlp(block, x)
    dense = ours.forward_dense(image, Readout(query_query, last_blocks=last_blocks))
    torch.testing.assert_close(dense.patches, as_map(naive.tail(x)[:, 1:]), **TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize(("residual", "mlp"), [("none", False), ("own", True)])
def test_parallel_sums_the_outputs_along_the_plain_path(models, image, residual, mlp):
    theirs, ours = models
    naive = Naive(theirs, image)
    x, total = naive.plain(naive.start, DEPTH - 3), 0
    for block in naive.blocks[-3:]:
        out = naive.branch(block, x, "qq") + (x if residual == "own" else 0)
        total = total + out + (naive.mlp(block, out) if mlp else 0)
        x = block(x)
    readout = Readout(query_query, residual=residual, mlp=mlp, last_blocks=3, stream="parallel")
    dense = ours.forward_dense(image, readout)
    torch.testing.assert_close(dense.patches, as_map(naive.tail(total)[:, 1:]), atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("mlp", [True, False])
def test_accumulate_collects_the_outputs_as_a_residual(models, image, mlp):
    theirs, ours = models
    naive = Naive(theirs, image)
    x = second = naive.plain(naive.start, DEPTH - 3)
    for block in naive.blocks[-3:]:
        second = second + naive.branch(block, x, "qq")
        second = second + naive.mlp(block, second) if mlp else second
        x = block(x)
    dense = ours.forward_dense(image, Readout(query_query, mlp=mlp, last_blocks=3, stream="accumulate"))
    torch.testing.assert_close(dense.patches, as_map(naive.tail(second)[:, 1:]), **TOLERANCE)


@torch.no_grad()
def test_dropping_the_class_token_before_the_rewritten_block(models, image):
    theirs, ours = models
    naive = Naive(theirs, image)
    x = naive.plain(naive.start, DEPTH - 1)[:, 1:]
    out = naive.tail(naive.branch(naive.blocks[-1], x, "qq"))
    seen = []

    def attention(q, k, v, ctx):
        seen.append((ctx.prefix, ctx.grid, q.shape[2]))
        return query_query(q, k, v, ctx)

    dense = ours.forward_dense(image, Readout(attention, residual="none", mlp=False, drop_cls=True))
    torch.testing.assert_close(dense.patches, as_map(out), **TOLERANCE)
    assert dense.cls is None
    assert seen == [(0, GRID, GRID[0] * GRID[1])]


@torch.no_grad()
def test_without_tail_features_stay_in_the_towers_width(models, image):
    theirs, ours = models
    naive = Naive(theirs, image)
    dense = ours.forward_dense(image, Readout(tail=False))
    torch.testing.assert_close(dense.patches, as_map(naive.plain(naive.start, DEPTH)[:, 1:]), **TOLERANCE)
    assert dense.space == "width"


@torch.no_grad()
@pytest.mark.parametrize("stream", ["inplace", "parallel", "accumulate"])
def test_taps_equal_what_open_clips_modules_compute(models, image, stream):
    """Of two streams the plain one is tapped; in place, the rewritten block is."""
    theirs, ours = models
    naive = Naive(theirs, image)
    blocks = (0, 2, -1)
    sites = ("ln_1", "q", "k", "v", "scores", "ln_2", "out")
    taps = tuple((block, site) for block in blocks for site in sites)
    readout = Readout(identity, last_blocks=2, stream=stream, taps=taps)
    got = ours.forward_dense(image, readout).taps
    assert set(got) == set(taps)

    x = naive.start
    for i, block in enumerate(naive.blocks):
        kind = "v" if stream == "inplace" and i >= DEPTH - 2 else "qk"
        q, k, v = naive.qkv(block, x)
        after = x + naive.branch(block, x, kind)
        wanted = {
            "ln_1": block.ln_1(x),
            **{s: p.transpose(1, 2).flatten(2) for s, p in zip("qkv", (q, k, v))},
            "scores": q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5,
            "ln_2": block.ln_2(after),
            "out": after + naive.mlp(block, after),
        }
        for key in [b for b in blocks if b % DEPTH == i]:
            for site, value in wanted.items():
                torch.testing.assert_close(got[key, site], value, **TOLERANCE)
        x = wanted["out"]


@torch.no_grad()
def test_an_attention_sees_earlier_taps_the_extra_and_only_what_it_reads(models, image):
    _, ours = models
    seen = {}

    @uses("v")
    def attention(q, k, v, ctx):
        seen.update(q=q, k=k, tap=ctx.taps[0, "k"], extra=ctx.extra["label"], tokens=ctx.tokens)
        return v

    ours.forward_dense(image, Readout(attention, taps=((0, "k"),)), extra={"label": 7})
    assert seen["q"] is None and seen["k"] is None and seen["extra"] == 7
    assert seen["tap"].shape == seen["tokens"].shape == (2, 1 + GRID[0] * GRID[1], ours.config.blocks.width)


@torch.no_grad()
def test_an_attention_may_move_to_another_grid(models, image):
    _, ours = models

    def attention(q, k, v, ctx):
        patches = v[:, :, 1:].unflatten(2, ctx.grid)
        return patches.repeat_interleave(2, 2).repeat_interleave(2, 3).flatten(2, 3), (4, 6)

    fine = ours.forward_dense(image, Readout(attention, residual="none", mlp=False))
    coarse = ours.forward_dense(image, Readout(identity, residual="none", mlp=False))
    assert fine.grid == (4, 6) and fine.cls is None
    torch.testing.assert_close(fine.patches[..., ::2, 1::2], coarse.patches, **TOLERANCE)
    with pytest.raises(ValueError, match="residual='none'"):
        ours.forward_dense(image, Readout(attention))


def test_what_cannot_be_done_is_said(models, image):
    _, ours = models
    with pytest.raises(ValueError, match="has 4 blocks"):
        ours.forward_dense(image, Readout(last_blocks=5))
    with pytest.raises(ValueError, match=r"tap \(4, 'k'\)"):
        ours.forward_dense(image, Readout(taps=((4, "k"),)))
    with pytest.raises(ValueError, match="sites out, ln_1"):
        ours.forward_dense(image, Readout(taps=((0, "key"),)))
    with pytest.raises(ValueError, match="smaller than one patch"):
        ours.forward_dense(image[..., :15, :], Readout())


def test_gradients_reach_every_parameter_that_takes_part(models, image):
    _, ours = models
    ours.zero_grad()
    dense = ours.forward_dense(image, Readout(query_query))
    (dense.patches.square().mean() + dense.cls.square().mean()).backward()
    without = [name for name, value in ours.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []
    ours.zero_grad()


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_training_in_mixed_precision(activation):
    cfg = cut_config("ViT-S-16")
    torch.manual_seed(0)
    model = CLIP(architecture(cfg | {"quick_gelu": activation == "quick_gelu"}))
    image, tokens = torch.randn(2, 3, 64, 96), torch.tensor([[1, 2, 499, 0], [1, 499, 0, 0]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        dense = model.visual.forward_dense(image, Readout(identity))
        scores = torch.einsum("bchw,bc->bhw", dense.patches, model.encode_text(tokens))
        whole = (model.encode_image(image) * dense.cls).sum()
    (scores.float().square().mean() + whole.float() + model.logit_scale).backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in model.parameters())


def test_q_and_v_can_be_trained_alone(models, image):
    """CAT-Seg trains two thirds of ``in_proj_weight``: PyTorch's parametrisation splits it, no tower needs to know."""
    from torch.nn.utils import parametrize

    class Joined(torch.nn.Module):
        def forward(self, q, k, v):
            return torch.cat([q, k, v])

        def right_inverse(self, weight):
            return weight.chunk(3)

    _, ours = models
    attn = ours.blocks[0].attn
    before = ours.forward_dense(image).patches.detach()
    parametrize.register_parametrization(attn, "in_proj_weight", Joined())
    attn.parametrizations.in_proj_weight.original1.requires_grad_(False)
    dense = ours.forward_dense(image).patches
    dense.square().mean().backward()
    parts = attn.parametrizations.in_proj_weight
    torch.testing.assert_close(dense, before)
    assert parts.original0.grad.any() and parts.original2.grad.any() and parts.original1.grad is None
    parametrize.remove_parametrizations(attn, "in_proj_weight")
    ours.zero_grad()


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("stream", ["inplace", "parallel", "accumulate"])
def test_compiles_without_graph_breaks(models, image, stream):
    _, ours = models
    readout = Readout(query_query, last_blocks=2, stream=stream, taps=((0, "scores"), (-1, "k"), (-2, "out")))

    def forward(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, DenseFeatures]:
        dense = ours.forward_dense(x, readout)
        return ours(x), dense.patches, dense.taps[-1, "k"]

    # The backend does not matter for breaks; the real one takes half a minute per case.
    compiled = torch.compile(forward, fullgraph=True, backend="aot_eager")
    for got, wanted in zip(compiled(image), forward(image)):
        torch.testing.assert_close(got, wanted, **TOLERANCE)
    whole = torch.compile(ours.forward_dense, fullgraph=True, backend="aot_eager")(image, readout)
    assert set(whole.taps) == set(readout.taps)


@torch.no_grad()
@pytest.mark.slow
def test_the_text_tower_compiles_without_graph_breaks():
    cfg = cut_config("ViT-S-16")
    model = CLIP(architecture(cfg)).eval()
    tokens = random_tokens(cfg)
    compiled = torch.compile(model.encode_text, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens), model.encode_text(tokens), **TOLERANCE)
