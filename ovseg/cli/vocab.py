"""``ovseg vocab``: look at a vocabulary, check it, turn it into embeddings."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg.cli.console import say
from ovseg.cli.options import EMBEDDED_MODEL, template_set

if TYPE_CHECKING:
    from ovseg.vocab.text_bank import TextBank
    from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["add_parser", "run"]

_TOWER = EMBEDDED_MODEL.partition("_")[2]


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Registers the sub-command."""
    parser = subparsers.add_parser(
        "vocab",
        help="look at a vocabulary, check it, or turn it into embeddings",
        description="list: the shipped lists. show: classes and words. check: words that a tower confuses. "
        "build: a .safetensors file of embeddings, for use without a text tower.",
    )
    parser.add_argument("action", choices=("list", "show", "check", "build"))
    parser.add_argument(
        "vocab", nargs="*", metavar="NAME|FILE|CLASS", help="a shipped list, a file, or classes"
    )
    parser.add_argument("--tower", default=_TOWER, metavar="NAME|FILE", help=f"(default: {_TOWER})")
    parser.add_argument("--templates", type=template_set, default="imagenet80", metavar="NAME")
    parser.add_argument(
        "--threshold", type=float, default=0.95, metavar="C", help="least cosine to report (default: 0.95)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="of build")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Does the action.

    Returns:
        0; 1 where ``check`` finds words that are too near.

    Raises:
        ValueError: There is no such vocabulary or tower, or a word cannot be encoded.
    """
    if args.action == "list":
        return _list()
    if not args.vocab:
        raise ValueError(
            f"name a vocabulary, as in `ovseg vocab {args.action} ade150`; `ovseg vocab list` has all"
        )
    if args.action == "build" and (args.out is None or args.out.suffix != ".safetensors"):
        raise ValueError("build needs --out FILE.safetensors")
    vocabulary = _vocabulary(args.vocab)
    if args.action == "show":
        return _show(vocabulary)
    bank = _encode(vocabulary, args)
    return _check(bank, args.threshold) if args.action == "check" else _build(bank, args)


def _vocabulary(texts: list[str]) -> Vocabulary:
    from ovseg.vocab.shipped import list_vocabularies
    from ovseg.vocab.vocabulary import Vocabulary

    (first, *more) = texts
    one = not more and (
        first in list_vocabularies() or Path(first).suffix in (".txt", ".json") or "." in first
    )
    return Vocabulary.of(first if one else texts)


def _list() -> int:
    from ovseg.vocab.shipped import list_vocabularies

    for name in list_vocabularies():
        print(name)
    return 0


def _show(vocabulary: Vocabulary) -> int:
    for i, item in enumerate(vocabulary.classes):
        words = " | ".join(item.words)
        text = item.name if words == item.name else f"{item.name}: {words}"
        print(f"{i}\t{'!' * item.is_background}{text}")
    say(f"{len(vocabulary)} classes, {len(vocabulary.words)} words")
    return 0


def _encode(vocabulary: Vocabulary, args: argparse.Namespace) -> TextBank:
    import warnings

    from ovseg.towers.weights import load_clip
    from ovseg.vocab.cache import TextCache
    from ovseg.vocab.text_bank import encode_vocabulary

    clip = load_clip(args.tower)
    with warnings.catch_warnings():
        if args.action == "check":  # says the same, in more detail
            warnings.simplefilter("ignore", UserWarning)
        import torch

        with torch.inference_mode():
            return encode_vocabulary(
                clip.model, clip.tokenizer, vocabulary, args.templates, cache=TextCache()
            )


def _check(bank: TextBank, threshold: float) -> int:
    from ovseg.vocab.text_bank import near_duplicates

    pairs = near_duplicates(bank, threshold)
    owner = dict(zip(bank.vocabulary.words, bank.vocabulary.word_to_class))
    for first, second, cosine in pairs:
        names = (bank.vocabulary.names[owner[word]] for word in (first, second))
        print("\t".join((f"{cosine:.4f}", first, second, *names)))
    say(f"{len(pairs)} pairs of words of two classes have a cosine above {threshold:g}")
    return 1 if pairs else 0


def _build(bank: TextBank, args: argparse.Namespace) -> int:
    from ovseg.vocab.bank_file import save_bank

    print(save_bank(bank, args.out, tower=args.tower, templates=args.templates), flush=True)
    say(f"{len(bank.rows)} words of {len(bank.vocabulary)} classes, {bank.rows.shape[2]} numbers each")
    return 0
