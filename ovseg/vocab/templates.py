"""Prompt template sets, verbatim: a missing full stop or "a origami" changes the tokens, so the numbers."""

from __future__ import annotations

import difflib
import json
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["fill", "list_templates", "templates"]


def list_templates() -> list[str]:
    """Names of the shipped sets, e.g. "imagenet80", "maskclip85", "vild14"."""
    return [name for name in _table() if not name.startswith("_")]


def templates(name: str) -> tuple[str, ...]:
    """The templates of a set, in the published order, each with a ``{}`` where the word goes.

    Raises:
        ValueError: There is no such set; near names are listed.
    """
    if name not in list_templates():
        near = difflib.get_close_matches(name, list_templates(), n=4, cutoff=0.4)
        raise ValueError(f"unknown template set {name!r}; near: {', '.join(near) or 'none'}")
    entry = _table()[name]
    rows = tuple(entry["templates"])
    if "prefix_rule" in entry:  # ViLD: every prompt that starts with "a" or "the" becomes a sentence
        rows = tuple("This is " + row if row.startswith(("a", "the")) else row for row in rows)
    return rows


def fill(template: str, word: str) -> str:
    """The prompt for a word.

    ``{article}`` (in ViLD's set) becomes "an" before a lower-case vowel, else "a".

    Raises:
        ValueError: The template has no ``{}``.
    """
    if "{}" not in template:
        raise ValueError(f"template {template!r} has no slot; write {{}} where the word goes")
    article = "an" if word[:1] in tuple("aeiou") else "a"
    return template.replace("{article}", article).replace("{}", word)


@cache
def _table() -> dict[str, Any]:
    return json.loads((files("ovseg.vocab") / "templates.json").read_text(encoding="utf-8"))
