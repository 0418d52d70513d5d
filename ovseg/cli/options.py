"""Options that several sub-commands share, and what they stand for."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ovseg.cli.console import say
from ovseg.vocab.bank_header import BANK_SUFFIX

if TYPE_CHECKING:
    from ovseg.inference.predictor import Predictor
    from ovseg.towers.weights import LoadedClip
    from ovseg.vocab.vocabulary import Vocabulary

__all__ = [
    "EMBEDDED_MODEL",
    "add_activation_option",
    "add_class_options",
    "add_detail_option",
    "add_model_options",
    "named_tower",
    "open_predictor",
    "read_vocabulary",
    "set_classes",
    "template_set",
]

EMBEDDED_MODEL = "maskclip_vit_tiny.emoji"
"""The model that works without any download. It knows drawings, not photographs."""


def add_class_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--classes``, ``--vocab``, ``--templates`` and ``--background``."""
    classes = parser.add_mutually_exclusive_group(required=True)
    classes.add_argument(
        "--classes",
        nargs="+",
        metavar="CLASS",
        help='classes in plain words; synonyms as in "person: man | woman"; a leading ! marks background',
    )
    classes.add_argument(
        "--vocab",
        metavar="NAME|FILE",
        help="a shipped list (ade150, voc21, ...), a .txt file with one class a line, or a .safetensors file "
        "of `ovseg vocab build`",
    )
    parser.add_argument(
        "--templates",
        type=template_set,
        metavar="NAME",
        help="prompt templates such as imagenet80 (default: those of the method)",
    )
    parser.add_argument(
        "--background",
        type=_background,
        metavar="RULE",
        help="what is none of the classes: words (default: a fixed list of common things competes), "
        "floor=0.3 (least probability), margin=0.05 (least lead), none (every pixel gets a class)",
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--model``, ``--method``, ``--tower``, ``--activation``, ``--device`` and ``--batch-size``."""
    parser.add_argument(
        "--model",
        metavar="NAME",
        help=f"a row of `ovseg models` (default: {EMBEDDED_MODEL}, which knows drawings, not photographs)",
    )
    parser.add_argument("--method", metavar="NAME", help="with --tower: any method on any CLIP tower")
    parser.add_argument("--tower", metavar="NAME|FILE", help="such as vit_b16.openai, or a file of weights")
    add_activation_option(parser)
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    parser.add_argument("--batch-size", type=_positive, metavar="N", help="windows at a time")


def add_activation_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``--activation``, for commands with ``--tower``."""
    parser.add_argument(
        "--activation",
        choices=("quick_gelu", "gelu"),
        help="of a --tower file that does not say: quick_gelu (OpenAI, MetaCLIP, DFN) or gelu (the others)",
    )


def add_detail_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``--detail``."""
    parser.add_argument(
        "--detail",
        type=_detail,
        default=1.0,
        metavar="D",
        help="see large images D times larger, in overlapping windows, for small things (default: 1)",
    )


def read_vocabulary(args: argparse.Namespace) -> Vocabulary:
    """The vocabulary that ``--classes`` or ``--vocab`` names.

    Raises:
        ValueError: There is no such list, or a class is a file that was meant as an input.
    """
    from ovseg.vocab.vocabulary import Vocabulary

    if args.vocab is not None:
        return Vocabulary.of(args.vocab)
    files = [text for text in args.classes if os.path.isfile(text)]  # unlike Path's, false for any text
    if files:
        raise ValueError(
            f"{files[0]!r} stands among the classes but is a file; "
            "inputs come before --classes, and a file of classes is given with --vocab"
        )
    return Vocabulary.of(args.classes)


def set_classes(predictor: Predictor, vocabulary: Vocabulary, args: argparse.Namespace) -> None:
    """Gives the predictor the classes that ``read_vocabulary`` has read; of a bank no word is encoded.

    Raises:
        ValueError: A word cannot be encoded, or the bank is of another text tower.
    """
    bank = args.vocab is not None and args.vocab.endswith(BANK_SUFFIX)
    predictor.set_vocabulary(args.vocab if bank else vocabulary, templates=args.templates)


def open_predictor(args: argparse.Namespace) -> Predictor:
    """Loads what ``--model``, or ``--method`` and ``--tower``, name.

    Raises:
        ValueError: There is no such model, or the options do not fit together.
        OSError: Its weights are not here and could not be fetched.
    """
    import ovseg

    options = {"device": args.device, "batch_size": args.batch_size}
    if args.method or args.tower:
        if args.model or not (args.method and args.tower):
            raise ValueError("give either --model, or both --method and --tower")
        say(f"loading {args.method} on {args.tower}")
        return ovseg.build(args.method, named_tower(args), **options)
    if args.activation:
        raise ValueError("--activation goes with --tower; the models of `ovseg models` know theirs")
    if args.model is None:
        say(
            f"note: no --model given, so this is {EMBEDDED_MODEL}, the small model that comes with ovseg. "
            "It knows drawings, not photographs; `ovseg models` lists others."
        )
    name = args.model or EMBEDDED_MODEL
    say(f"loading {name}")
    return ovseg.load(name, **options)


def named_tower(args: argparse.Namespace) -> str | LoadedClip:
    """What ``--tower`` names, loaded already where ``--activation`` is given."""
    if args.activation is None:
        return args.tower
    from ovseg.towers.weights import load_clip

    return load_clip(args.tower, activation=args.activation)


def _background(text: str) -> str:
    from ovseg.inference.background import BackgroundRule

    with _for_argparse():
        BackgroundRule.parse(text)
    return text


def template_set(text: str) -> str:
    """The name of a template set, for argparse."""
    from ovseg.vocab.templates import templates

    with _for_argparse():
        templates(text)
    return text


@contextmanager
def _for_argparse() -> Iterator[None]:
    """argparse shows the text of no other exception."""
    try:
        yield
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _detail(text: str) -> float:
    value = float(text)
    if not 1 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number
