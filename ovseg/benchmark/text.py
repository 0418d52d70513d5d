"""Text: 20 words under 80 templates, against open_clip's ``encode_text`` with the same weights."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F

from ovseg.benchmark.harness import compare, record, time_ms
from ovseg.towers.clip import CLIP, architecture
from ovseg.towers.tokenizer import Tokenizer
from ovseg.vocab.cache import TextCache, weights_hash
from ovseg.vocab.templates import fill, templates
from ovseg.vocab.text_bank import encode_vocabulary
from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["run"]

_ARCHITECTURE = "ViT-B-16"


@torch.inference_mode()
def run() -> Iterator[dict[str, Any]]:
    """Yields ``text.encode`` and ``text.cached``.

    The reference encodes each word's 80 prompts as one batch and gets its tokens for nothing; our time
    includes tokenizing.
    """
    import open_clip

    torch.manual_seed(0)
    theirs = open_clip.create_model(_ARCHITECTURE).eval()
    ours = CLIP(architecture(_ARCHITECTURE)).eval()
    weights = theirs.state_dict()
    ours.text.load_state_dict({name: weights[name] for name in ours.text.state_dict()})
    vocabulary, rows = Vocabulary.of("voc20"), templates("imagenet80")
    tokenizer = Tokenizer(ours.config.text.context_length)
    batches = [open_clip.tokenize([fill(row, word) for row in rows]) for word in vocabulary.words]

    def reference() -> torch.Tensor:
        means = [F.normalize(theirs.encode_text(tokens), dim=-1).mean(dim=0) for tokens in batches]
        return F.normalize(torch.stack(means), dim=-1)

    yield compare(
        "text.encode",
        lambda: encode_vocabulary(ours, tokenizer, vocabulary, rows).matrix,
        reference,
        repeats=2,
        architecture=_ARCHITECTURE,
        templates=len(rows),
        words=len(vocabulary.words),
    )
    start = time.perf_counter()
    weights_hash(ours.text)
    hash_ms = 1000 * (time.perf_counter() - start)
    with tempfile.TemporaryDirectory() as folder:
        cache = TextCache(folder)
        cached_ms = time_ms(
            lambda: encode_vocabulary(ours, tokenizer, vocabulary, rows, cache=cache), repeats=21
        )
    yield record("text.cached", ours_ms=cached_ms, hash_ms=round(hash_ms, 1), words=len(vocabulary.words))
