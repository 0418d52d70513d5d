from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from ovseg.towers.tokenizer import Tokenizer

PROMPTS = [
    "a photo of a cat.",
    "itap of the Zebra, crossing!",
    "naïve café ☕ 你好",
    "",
    "it's 2 o'clock  &amp; more",
]


def test_ids_are_open_clips():
    from open_clip.tokenizer import SimpleTokenizer

    assert torch.equal(Tokenizer()(PROMPTS), SimpleTokenizer()(PROMPTS))
    assert Tokenizer()("one prompt").shape == (1, 77)
    assert Tokenizer(16)(PROMPTS).shape == (5, 16)
    assert Tokenizer.vocab_size == SimpleTokenizer().vocab_size


def test_a_prompt_is_a_list_of_ids_from_start_to_end():
    ids = Tokenizer().encode("a cat")
    assert ids == [49406, 320, 2368, 49407]
    assert Tokenizer()(iter(["a cat"]))[0, :5].tolist() == [*ids, 0]


def test_a_prompt_that_is_too_long_is_named():
    long = "word " * 15
    tokenizer = Tokenizer(16)
    assert len(tokenizer.encode("word " * 14)) == 16
    with pytest.raises(ValueError, match=r"the prompt 'word word .*\.\.\.' has 17 tokens, .* at most 16"):
        tokenizer(["a cat", long])


def test_the_identity_names_the_vocabulary():
    assert Tokenizer(16).identity == Tokenizer(77).identity
    assert Tokenizer().identity.startswith("clip-bpe-lower-")


def test_open_clip_itself_is_not_imported():
    """It takes seconds."""
    code = (
        "import sys; from ovseg.towers.tokenizer import Tokenizer; Tokenizer()(['a cat']); "
        "assert 'open_clip' not in sys.modules and 'torchvision' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
