"""CAT-Seg's head (24 x 24, 128 channels, 2 layers), against its straightforward form and bare arithmetic.

The straightforward form is that of ``tests/methods/cat_seg``; run this from a checkout.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.benchmark.harness import compare, peak_memory, record
from ovseg.methods.cat_seg.aggregator import Aggregator
from ovseg.methods.cat_seg.config import AggregatorConfig
from ovseg.methods.cat_seg.converter import to_published_aggregator
from ovseg.methods.cat_seg.loss import segmentation_loss
from ovseg.towers.linear import linear

__all__ = ["ROWS", "multiply_adds", "run"]

_CLASSES = (20, 150, 847)
ROWS = (*(f"forward{classes}" for classes in _CLASSES), "memory", "training")
"""What ``run`` measures."""
_GRID = 24
_CONFIG = AggregatorConfig()
_CHUNK = 8  # classes at once in the bare arithmetic; ours has as many per thread
_PLAIN = Path(__file__).resolve().parents[2] / "tests" / "methods" / "cat_seg" / "straightforward.py"
_Inputs = tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]


def run(rows: Collection[str] = ROWS) -> Iterator[dict[str, Any]]:
    """Measures each row by itself.

    Args:
        rows: ``forward20`` and so on: time for 20, 150 and 847 classes, against the straightforward form and
            the bare arithmetic. ``memory``: peaks for 847 classes. ``training``: time and peak of a step.

    Yields:
        ``cat_seg.forward``, ``cat_seg.memory`` and ``cat_seg.training``.
    """
    for classes in _CLASSES:
        if f"forward{classes}" in rows:
            yield _forward(classes)
    if "memory" in rows:
        ours, plain = (peak_memory(step, classes=847) for step in (prepare_forward, prepare_plain))
        yield record("cat_seg.memory", classes=847, ours_mb=ours >> 20, reference_mb=plain >> 20)
    if "training" in rows:
        yield _training(171)


@torch.inference_mode()
def _forward(classes: int) -> dict[str, Any]:
    """Time against the straightforward form, and as a multiple of that of the bare arithmetic.

    ``over_bare`` takes PyTorch's own matrix products; ``over_onednn`` those that are the fastest it has on
    many processors, and the ones that ours uses.
    """
    ours, plain = prepare_forward(classes), prepare_plain(classes)
    kept = min(classes, _CONFIG.pad_len)
    figures = compare("cat_seg.forward", ours, plain, repeats=3, classes=classes)
    own, listed, all_of_it = (multiply_adds(classes, saved) for saved in ("all", "listed", "none"))
    return figures | {
        "over_bare": _share(ours, _bare(kept, torch.mm)),
        "over_onednn": _share(ours, _bare(kept, lambda x, weight: linear(x, weight.T))),
        "multiply_adds": own,
        "multiply_adds_with_the_listed_savings": listed,
        "reference_multiply_adds": all_of_it,
    }


def _share(ours: Callable[[], Any], bare: Callable[[], Any], turns: int = 5) -> float:
    """Time of ours over that of the bare arithmetic, in turn as ``compare`` does it: the median."""
    bare()
    shares = []
    for _ in range(turns):
        start = time.perf_counter()
        ours()
        middle = time.perf_counter()
        bare()
        shares.append((middle - start) / (time.perf_counter() - middle))
    return float(f"{statistics.median(shares):.3g}")


def prepare_forward(classes: int) -> Callable[[], Tensor]:
    """Our head on random inputs."""
    head, inputs = _head(), _inputs(classes)
    return torch.inference_mode()(lambda: head(*inputs))


def prepare_plain(classes: int) -> Callable[[], Tensor]:
    """The straightforward form with the same weights and inputs."""
    head, inputs = _plain(_head()), _inputs(classes)
    return torch.inference_mode()(lambda: head(*inputs))


def prepare_step(classes: int, plain: bool) -> Callable[[], Tensor]:
    """Loss and gradients of the head for one image of 384 x 384 pixels."""
    head, inputs = _head(), _inputs(classes)
    labels = torch.randint(0, classes, (1, 384, 384))
    forward = _plain(head) if plain else head

    def step() -> Tensor:
        head.zero_grad()
        logits = forward(*inputs, (2, 2))
        loss = _plain_loss(logits, labels) if plain else segmentation_loss(logits, labels, "negative")
        loss.backward()
        return loss.detach()

    return step


def _training(classes: int) -> dict[str, Any]:
    """Batch 1: at the published 4, the straightforward form needs over 30 GB."""
    ours, plain = (prepare_step(classes, plain) for plain in (False, True))
    figures = compare("cat_seg.training", ours, plain, repeats=2, classes=classes, batch=1)
    ours_peak, plain_peak = (peak_memory(prepare_step, classes=classes, plain=p) for p in (False, True))
    return figures | {"ours_mb": ours_peak >> 20, "reference_mb": plain_peak >> 20}


def _plain_loss(logits: Tensor, labels: Tensor) -> Tensor:
    full = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)
    target = F.one_hot(labels, logits.shape[1]).movedim(-1, 1).float()
    return F.binary_cross_entropy_with_logits(full, target)


def _head() -> Aggregator:
    torch.manual_seed(0)
    return Aggregator(_CONFIG)


def _inputs(classes: int) -> _Inputs:
    torch.manual_seed(1)
    features = torch.randn(1, _CONFIG.embed_dim, _GRID, _GRID)
    coarse, fine = (
        torch.randn(1, channels, scale * _GRID, scale * _GRID)
        for channels, scale in zip(_CONFIG.guidance_dims, (2, 4))
    )
    return features, torch.randn(classes, 1, _CONFIG.embed_dim), (features, coarse, fine)


def _plain(head: Aggregator) -> Callable[..., Tensor]:
    if not _PLAIN.is_file():
        raise FileNotFoundError(f"the benchmark of cat_seg needs {_PLAIN}; run it from a checkout of ovseg")
    spec = importlib.util.spec_from_file_location("straightforward", _PLAIN)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    weights = to_published_aggregator(dict(head.named_parameters()), (_GRID, _GRID), _CONFIG.window)
    return module.Straightforward(weights, _CONFIG)


def _bare(classes: int, mm: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], None]:
    """The multiply-adds of ours that grow with the classes, as bare matrix products and convolutions.

    Of eight classes at a time, as in ours; classes that are left over are left out.
    """
    width, head = _CONFIG.width, _CONFIG.width // _CONFIG.heads
    shapes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    products = [(torch.randn(_CHUNK * _GRID**2, a), torch.randn(a, b)) for a, b in shapes]
    attended = []
    for count, cells in ((4, 144), (1, 144), (4, 72), (4, 36)):  # regular windows, then shifted ones
        part = torch.randn(_CHUNK * count * _CONFIG.heads, cells, head)
        attended.append((part, torch.randn(len(part), cells, cells)))
    per_class = torch.randn(_CHUNK * _GRID**2 * _CONFIG.heads // classes, classes, head)
    first, second = _CONFIG.decoder_dims
    convolutions = [
        (F.conv2d, _image(1, 1), torch.randn(width, 1, 7, 7), {"padding": 3}),
        (F.conv_transpose2d, _image(width, 1), torch.randn(width, first, 4, 4), {"stride": 2, "padding": 1}),
        (F.conv2d, _image(first, 2), torch.randn(first, first, 3, 3), {"padding": 1}),
        (F.conv_transpose2d, _image(first, 2), torch.randn(first, second, 4, 4), {"stride": 2, "padding": 1}),
        (F.conv2d, _image(second, 4), torch.randn(second, second, 3, 3), {"padding": 1}),
        (F.conv2d, _image(second, 4), torch.randn(1, second, 3, 3), {"padding": 1}),
    ]

    def layer() -> None:
        for _ in range(2):  # spatial: qkv, projection, MLP
            for x, weight in products:
                mm(x, weight)
        for part, scores in attended:
            torch.bmm(part, part.transpose(1, 2))
            torch.bmm(scores, part)
        for x, weight in (products[0], *products[2:]):  # classes: no projection
            mm(x, weight)
        torch.bmm(per_class, torch.bmm(per_class.transpose(1, 2), per_class))

    def run() -> None:
        for _ in range(classes // _CHUNK):
            for _ in range(_CONFIG.layers):
                layer()
            for function, image, kernel, options in convolutions:
                function(image, kernel, **options)  # type: ignore[operator]

    return run


def _image(channels: int, scale: int) -> Tensor:
    image = torch.randn(_CHUNK, channels, scale * _GRID, scale * _GRID)
    return image.contiguous(memory_format=torch.channels_last)


def multiply_adds(classes: int, saved: Literal["all", "listed", "none"] = "all") -> int:
    """Multiply-adds of a forward pass of one image, counted by hand.

    Args:
        classes: Number of classes.
        saved: ``none``: the straightforward form. ``listed``: guidance once for all classes, padding tokens
            once, no masked windows. ``all``: what ours does, where the decoder's transposed convolutions are
            also merged with the convolutions after them.
    """
    c, cells, plain = _CONFIG.width, _GRID**2, saved == "none"
    kept = min(classes, _CONFIG.pad_len)
    tokens, images = kept * cells, kept if plain else 1
    once = classes * _CONFIG.embed_dim * (cells + _CONFIG.text_dim) + _guidance()
    embed = tokens * 49 * _CONFIG.templates * c
    shifted = 4 * 144**2 if plain else 144**2 + 4 * 72**2 + 4 * 36**2
    spatial = 2 * tokens * 12 * c * c + kept * (4 * 144**2 + shifted) * 2 * c
    spatial += 2 * images * cells * 2 * _CONFIG.appearance_dim * c
    in_class = _CONFIG.pad_len * cells if plain else tokens
    per_class = in_class * (11 * c * c + 2 * c * (c // _CONFIG.heads) + c)
    per_class += (in_class if plain else kept) * 2 * _CONFIG.text_dim * c
    return once + embed + _CONFIG.layers * (spatial + per_class) + _decoder(kept, saved)


def _guidance() -> int:
    """Projections of the image features."""
    cells, total = _GRID**2, 9 * _CONFIG.embed_dim * _CONFIG.appearance_dim * _GRID**2
    for wide, narrow, scale in zip(_CONFIG.guidance_dims, _CONFIG.decoder_guidance_dims, (2, 4)):
        total += 9 * wide * narrow * cells * scale**2
    return total


def _decoder(kept: int, saved: str) -> int:
    total, before = 9 * _CONFIG.decoder_dims[1] * 16 * _GRID**2 * kept, _CONFIG.width
    for after, guided, scale in zip(_CONFIG.decoder_dims, _CONFIG.decoder_guidance_dims, (2, 4)):
        cells, up = (scale * _GRID) ** 2, before - guided
        total += kept * cells * 9 * after * after
        if saved == "all":  # 4 of the 16 taps of the merged kernel meet each cell
            total += kept * cells * 4 * before * after + cells * 9 * before * after
            total += 16 * 9 * before * up * after  # merging the kernels
        else:
            total += kept * cells * (before * up + 9 * up * after)
            total += (kept if saved == "none" else 1) * cells * 9 * guided * after
        before = after
    return total
