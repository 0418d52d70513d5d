from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F

from ovseg.towers.tokenizer import Tokenizer
from ovseg.vocab import text_bank
from ovseg.vocab.cache import TextCache
from ovseg.vocab.text_bank import TextBank, encode_vocabulary, near_duplicates
from ovseg.vocab.vocabulary import Vocabulary

# To a tower with random weights most words are nearly the same.
pytestmark = pytest.mark.filterwarnings("ignore:the words .* mean the same")

_TOKENIZER = Tokenizer(16)
_TEMPLATES = ("a photo of a {}.", "{}", "a {} in the sun")
_VOCABULARY = Vocabulary.of(["road", "person: man | traffic light | 日本", "!sky: sky"])


def _embed(clip, template: str, word: str) -> torch.Tensor:
    with torch.no_grad():
        return clip.encode_text(_TOKENIZER(template.replace("{}", word)))[0]


@pytest.fixture
def raw(clip) -> torch.Tensor:
    """(Q, T, C), one prompt at a time."""
    return torch.stack(
        [torch.stack([_embed(clip, t, word) for t in _TEMPLATES]) for word in _VOCABULARY.words]
    )


def test_norm_mean_norm(clip, raw):
    bank = encode_vocabulary(clip, _TOKENIZER, _VOCABULARY, _TEMPLATES)
    expected = F.normalize(F.normalize(raw, dim=-1).mean(1), dim=-1)
    torch.testing.assert_close(bank.matrix.detach(), expected, atol=2e-6, rtol=0)
    assert bank.normalised
    assert bank.unit is bank.rows


def test_mean_of_raw_rows(clip, raw):
    bank = encode_vocabulary(clip, _TOKENIZER, _VOCABULARY, _TEMPLATES, average="mean")
    torch.testing.assert_close(bank.matrix.detach(), raw.mean(1), atol=1e-5, rtol=1e-5)
    assert not bank.normalised
    torch.testing.assert_close(bank.unit.norm(dim=-1), torch.ones(5, 1))


def test_keep(clip, raw):
    bank = encode_vocabulary(clip, _TOKENIZER, _VOCABULARY, _TEMPLATES, average="keep")
    torch.testing.assert_close(bank.rows.detach(), raw, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="3 rows per word"):
        _ = bank.matrix


def test_word_to_class_and_a_word_of_two_classes(clip):
    with pytest.warns(UserWarning, match="serves 2"):
        vocabulary = Vocabulary.of(["road", "way: road | path"])
    with pytest.warns(UserWarning, match="'road' and 'road'"):
        bank = encode_vocabulary(clip, _TOKENIZER, vocabulary, _TEMPLATES)
    assert bank.word_to_class.tolist() == [0, 1, 1]
    assert torch.equal(bank.rows[0], bank.rows[1])


def test_many_words_are_encoded_in_steps_that_are_reported(clip, monkeypatch):
    vocabulary = Vocabulary.of([f"thing {i}" for i in range(10)])
    whole = encode_vocabulary(clip, _TOKENIZER, vocabulary, _TEMPLATES)
    monkeypatch.setattr(text_bank, "_PROMPTS_PER_STEP", 4 * len(_TEMPLATES))
    steps: list[tuple[int, int]] = []
    bank = encode_vocabulary(
        clip, _TOKENIZER, vocabulary, _TEMPLATES, progress=lambda *step: steps.append(step)
    )
    assert steps == [(4, 10), (8, 10), (10, 10)]
    torch.testing.assert_close(bank.rows, whole.rows, atol=2e-6, rtol=0)


def test_a_shipped_set_by_name(clip):
    named = encode_vocabulary(clip, _TOKENIZER, _VOCABULARY, "simple")
    assert torch.equal(
        named.rows, encode_vocabulary(clip, _TOKENIZER, _VOCABULARY, ["a photo of a {}."]).rows
    )


def test_gradients_reach_the_text_tower(clip):
    bank = encode_vocabulary(clip, _TOKENIZER, _VOCABULARY, _TEMPLATES)
    bank.rows.square().sum().mul(0.5).add(bank.rows.sum()).backward()
    assert all(value.grad is not None and bool(value.grad.any()) for value in clip.text.parameters())


def test_errors_name_the_prompt_or_the_cure(clip):
    with pytest.raises(ValueError, match=r"'a photo of a (very )+"):
        encode_vocabulary(clip, _TOKENIZER, Vocabulary.of(["very " * 20 + "long"]), _TEMPLATES)
    with pytest.raises(ValueError, match="'a photo' has no slot"):
        encode_vocabulary(clip, _TOKENIZER, _VOCABULARY, ["a photo"])
    with pytest.raises(ValueError, match="no prompt templates"):
        encode_vocabulary(clip, _TOKENIZER, _VOCABULARY, [])
    with pytest.raises(ValueError, match="one of norm_mean_norm, mean, keep"):
        encode_vocabulary(clip, _TOKENIZER, _VOCABULARY, _TEMPLATES, average="max")
    silent = Vocabulary.from_dict({"classes": [{"name": "rest", "words": [], "background": True}]})
    with pytest.raises(ValueError, match="no class of the vocabulary has a word"):
        encode_vocabulary(clip, _TOKENIZER, silent, _TEMPLATES)


def test_near_duplicates_of_different_classes():
    rows = F.normalize(torch.eye(4)[[0, 1, 2, 0, 1, 3]] + 1e-4, dim=-1).unsqueeze(1)
    vocabulary = Vocabulary.of(["a: w0 | w1", "b: w2 | w3", "!c: w4", "d: w5"])
    bank = TextBank(rows, True, torch.tensor(vocabulary.word_to_class), vocabulary)
    (pair,) = near_duplicates(bank)  # w1 and w4 are as close, but w4 is background
    assert pair[:2] == ("w0", "w3")
    assert pair[2] == pytest.approx(1.0)


def test_words_that_the_tokenizer_makes_equal_warn_but_not_in_shipped_lists(clip):
    with pytest.warns(UserWarning, match="mean the same"):
        encode_vocabulary(clip, _TOKENIZER, Vocabulary.of(["tea & cake", "tea &amp; cake"]), _TEMPLATES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode_vocabulary(clip, _TOKENIZER, Vocabulary.of("coco_object.sclip"), ["{}"])  # bed twice


def test_cached_rows_are_the_encoded_ones_and_only_new_words_are_encoded(clip, tmp_path, monkeypatch):
    cache = TextCache(tmp_path)
    first = encode_vocabulary(clip, _TOKENIZER, _VOCABULARY, _TEMPLATES, cache=cache)
    prompts: list[str] = []
    encode = Tokenizer.encode
    monkeypatch.setattr(
        Tokenizer, "encode", lambda self, prompt: prompts.append(prompt) or encode(self, prompt)
    )
    again = encode_vocabulary(clip, _TOKENIZER, _VOCABULARY, _TEMPLATES, cache=cache)
    assert torch.equal(again.rows, first.rows)
    assert not prompts
    more = encode_vocabulary(clip, _TOKENIZER, Vocabulary.of(["zebra", "road"]), _TEMPLATES, cache=cache)
    assert prompts == [template.replace("{}", "zebra") for template in _TEMPLATES]
    assert torch.equal(more.rows[1], first.rows[0])
    assert not more.rows.requires_grad
