"""``ovseg vocab``: look at a vocabulary, check it, turn it into embeddings."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg.cli.console import say
from ovseg.cli.options import EMBEDDED_MODEL, add_activation_option, template_set

if TYPE_CHECKING:
    from ovseg.vocab.bank_file import SavedBank
    from ovseg.vocab.text_bank import TextBank
    from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["add_parser", "run"]

_TEMPLATES = "imagenet80"


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Registers the sub-command."""
    parser = subparsers.add_parser(
        "vocab",
        help="look at a vocabulary, check it, or turn it into embeddings",
        description="list: the shipped lists. show: classes and words. check: words that a tower confuses. "
        "build: a .safetensors file of embeddings, which stands for the classes after --vocab; no word is "
        "encoded then.",
    )
    parser.add_argument("action", choices=("list", "show", "check", "build"))
    parser.add_argument(
        "vocab", nargs="*", metavar="NAME|FILE|CLASS", help="a shipped list, a file, or classes"
    )
    parser.add_argument(
        "--model", metavar="NAME", help=f"whose text tower and templates encode (default: {EMBEDDED_MODEL})"
    )
    parser.add_argument("--tower", metavar="NAME|FILE", help="in place of --model")
    add_activation_option(parser)
    parser.add_argument(
        "--templates",
        type=template_set,
        metavar="NAME",
        help=f"(default: those of the model; of a tower {_TEMPLATES})",
    )
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
    if args.model and args.tower:
        raise ValueError("give either --model or --tower")
    saved = _encode(vocabulary, args)
    return _check(saved.bank, args.threshold) if args.action == "check" else _build(saved, args.out)


def _vocabulary(texts: list[str]) -> Vocabulary:
    from ovseg.vocab.shipped import list_vocabularies
    from ovseg.vocab.vocabulary import Vocabulary

    (first, *more) = texts
    one = not more and (first in list_vocabularies() or ("." in first and " " not in first))
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


def _encode(vocabulary: Vocabulary, args: argparse.Namespace) -> SavedBank:
    import warnings

    with warnings.catch_warnings():
        if args.action == "check":  # says the same, in more detail
            warnings.simplefilter("ignore", UserWarning)
        if args.tower:
            from ovseg.towers.weights import load_clip
            from ovseg.vocab.bank_file import encode_bank

            clip = load_clip(args.tower, activation=args.activation)
            return encode_bank(clip, vocabulary, args.templates or _TEMPLATES, "norm_mean_norm")
        import ovseg

        predictor = ovseg.load(args.model or EMBEDDED_MODEL)
        predictor.set_vocabulary(vocabulary, templates=args.templates)
        return predictor.bank()


def _check(bank: TextBank, threshold: float) -> int:
    from ovseg.vocab.text_bank import near_duplicates

    pairs = near_duplicates(bank, threshold)
    owner = dict(zip(bank.vocabulary.words, bank.vocabulary.word_to_class))
    for first, second, cosine in pairs:
        names = (bank.vocabulary.names[owner[word]] for word in (first, second))
        print("\t".join((f"{cosine:.4f}", first, second, *names)))
    say(f"{len(pairs)} pairs of words of two classes have a cosine above {threshold:g}")
    return 1 if pairs else 0


def _build(saved: SavedBank, out: Path) -> int:
    print(saved.save(out), flush=True)
    rows = saved.bank.rows
    say(
        f"{len(rows)} words of {len(saved.vocabulary)} classes and {len(saved.competitors)} that compete, "
        f"{rows.shape[1] * rows.shape[2]} numbers each, for {saved.tower}"
    )
    return 0
