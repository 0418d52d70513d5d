"""Reads classes from strings, text files and JSON."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Entry", "check_characters", "quoted", "read_entries", "read_file", "read_strings"]

# What breaks a prompt, a legend or a file: controls, lone surrogates, line and paragraph separators.
_FORBIDDEN = {"Cc", "Cs", "Zl", "Zp"}


class Entry(NamedTuple):
    """One class as it was written; ``colour`` is None where none was given."""

    name: str
    words: tuple[str, ...]
    is_background: bool = False
    colour: tuple[int, int, int] | None = None


def read_strings(strings: Iterable[str]) -> list[Entry]:
    """Classes from ``"name"``, ``"name: word | word"`` or either after ``!`` (background)."""
    return [_parse(text) for text in strings]


def read_file(path: Path) -> list[Entry]:
    """Classes from a ``.json`` file, or from any other as text with one class string a line.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read as a vocabulary; the message names the file and the cure.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no vocabulary file {path}; check the path, or name the classes themselves")
    try:
        text = path.read_text(encoding="utf-8-sig")
        return _read_json(text) if path.suffix.lower() == ".json" else read_strings(_lines(text))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply; write a plain list of class strings") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_entries(entries: Any) -> list[Entry]:
    """Classes from plain data: a list of objects as ``Vocabulary.from_dict`` describes."""
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise ValueError("a vocabulary needs 'classes': a list of objects with 'name' and 'words'")
    return [_read_entry(i, entry) for i, entry in enumerate(entries)]


def check_characters(text: str) -> None:
    """Raises ValueError where a control character, lone surrogate or separator is in ``text``."""
    bad = next((c for c in text if unicodedata.category(c) in _FORBIDDEN), None)
    if bad is not None:
        raise ValueError(
            f"{text!r} holds the character U+{ord(bad):04X}, which no name or word may; remove it"
        )


def quoted(names: Iterable[str], limit: int = 5) -> str:
    """``'a', 'b' and 3 more`` for messages."""
    shown = [repr(name) for name in names]
    rest = len(shown) - limit
    return ", ".join(shown[:limit]) + (f" and {rest} more" if rest > 0 else "")


def _read_json(text: str) -> list[Entry]:
    data = json.loads(text)
    if isinstance(data, Mapping):
        return read_entries(data.get("classes"))
    if isinstance(data, list):
        return read_strings(data)
    raise ValueError("expected a list of class strings, or an object with 'classes'")


def _lines(text: str) -> list[str]:
    # split, not splitlines: only real line ends separate classes; other separators are errors to report.
    lines = [_without_comment(line).strip() for line in text.split("\n")]
    return [line for line in lines if line]


def _without_comment(line: str) -> str:
    starts = [
        at for at, c in enumerate(line) if c == "#" and (not line[:at].strip() or line[at - 1].isspace())
    ]
    return line[: starts[0]] if starts else line


def _parse(text: str) -> Entry:
    if not isinstance(text, str):
        raise ValueError(f"a class is a string like 'road' or 'person: man | woman', not {text!r}")
    body = text.strip()
    name, colon, words = body.removeprefix("!").partition(":")
    name = _clean(name)
    if not name:
        raise ValueError(f"{text!r} has no class name; write 'name' or 'name: word | other word'")
    if not colon and "|" in name:
        raise ValueError(f"{text!r} has several words but no name; write 'name: {name}'")
    cleaned = tuple(_clean(word) for word in words.split("|")) if colon else (name,)
    if "" in cleaned:
        raise ValueError(f"{text!r} has an empty word; write 'name: word | other word', or only the name")
    repeated = [word for word, n in Counter(cleaned).items() if n > 1]
    if repeated:
        raise ValueError(f"class {name!r} has the word {quoted(repeated)} twice; remove one")
    return Entry(name, cleaned, is_background=body.startswith("!"))


def _clean(text: str) -> str:
    """One spelling for what looks the same: composed characters, single spaces, none at the ends."""
    text = unicodedata.normalize("NFC", text).strip()
    check_characters(text)
    return " ".join(text.split())


def _read_entry(i: int, entry: Any) -> Entry:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise ValueError(f"class {i} needs a 'name' (a string)")
    name, colour = entry["name"], entry.get("colour")
    words = entry.get("words", [name])
    if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"class {name!r}: 'words' must be a list of strings")
    is_background = entry.get("background", False)
    if not isinstance(is_background, bool):
        raise ValueError(f"class {name!r}: 'background' must be true or false")
    return Entry(name, tuple(words), is_background, None if colour is None else _read_colour(name, colour))


def _read_colour(name: str, colour: Any) -> tuple[int, int, int]:
    channels = tuple(colour) if isinstance(colour, (list, tuple)) else ()
    if len(channels) != 3 or not all(type(c) is int and 0 <= c <= 255 for c in channels):
        raise ValueError(f"class {name!r}: 'colour' must be three integers from 0 to 255")
    return channels
