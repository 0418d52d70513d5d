"""Methods and zoo rows by name. Reads the method files, but neither torch nor open_clip."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import ovseg.methods
from ovseg.inference.protocol import Protocol
from ovseg.methods.method import Method
from ovseg.towers.table import tower_info

__all__ = [
    "ZooRow",
    "default_protocol",
    "get_method",
    "list_methods",
    "list_models",
    "nearest",
    "zoo",
    "zoo_row",
]

_SHARED = {
    "method",
    "registry",
    "segmenter",
    "trained",
    "two_towers",
}  # beside the methods; some import torch


@dataclass(frozen=True)
class ZooRow:
    """One model that can be loaded by name.

    Attributes:
        name: ``<method>_<tower>.<tag>``.
        method: Name of the method.
        tower: Name of the weights.
        licence: Of the weights.
        note: What a user should know first, or "".
    """

    name: str
    method: str
    tower: str
    licence: str
    note: str = ""

    @property
    def protocol(self) -> Protocol:
        """Settings for users' own images."""
        method = get_method(self.method)
        return method.protocols[default_protocol(method, self.tower)]


def is_emoji(tower: str) -> bool:
    """Whether a tower is an embedded one, which knows drawings only."""
    return tower.rpartition(".")[2].startswith("emoji")


def default_protocol(method: type[Method], tower: str) -> str:
    """Name of the protocol for users' own images; embedded weights may have one of their own."""
    if not is_emoji(tower):
        return "default"
    tag = tower.rpartition(".")[2]
    return tag if tag in method.protocols else "emoji"


@cache
def _methods() -> dict[str, type[Method]]:
    """Every subclass of Method that a file of this package defines."""
    found = {}
    files = {module.name for module in pkgutil.iter_modules(ovseg.methods.__path__)} - _SHARED
    for name in sorted(files):
        module = importlib.import_module(f"ovseg.methods.{name}")
        for value in vars(module).values():
            own = isinstance(value, type) and value.__module__ == module.__name__
            if own and issubclass(value, Method) and hasattr(value, "name"):  # not what methods share
                found[value.name] = value
    return found


def list_methods() -> list[str]:
    """Names of all methods."""
    return sorted(_methods())


def get_method(name: str) -> type[Method]:
    """A method by name.

    Raises:
        ValueError: There is none; near names are listed.
    """
    if name not in _methods():
        raise ValueError(f"unknown method {name!r}; {nearest(name, _methods())}")
    return _methods()[name]


@cache
def zoo() -> dict[str, ZooRow]:
    """All rows by name, embedded weights first."""
    rows = [_row(method, tower) for method in _methods().values() for tower in method.towers]
    return {row.name: row for row in sorted(rows, key=lambda row: (not is_emoji(row.tower), row.name))}


def _row(method: type[Method], tower: str) -> ZooRow:
    note = "embedded; knows drawings, not photographs" if is_emoji(tower) else ""
    weights = method.trained.get(tower) or tower_info(tower)
    return ZooRow(f"{method.name}_{tower}", method.name, tower, weights.licence, note)


def zoo_row(name: str) -> ZooRow:
    """A row by name.

    Raises:
        ValueError: There is none; near names are listed.
    """
    if name not in zoo():
        raise ValueError(f"unknown model {name!r}; {nearest(name, zoo())}")
    return zoo()[name]


def list_models(pattern: str = "*") -> list[str]:
    """Names of the zoo, filtered by a shell pattern ("maskclip*", "*.openai")."""
    return [name for name in zoo() if fnmatch.fnmatch(name, pattern)]


def nearest(name: str, names: Iterable[str]) -> str:
    """For an error: the names most like one that does not exist, or all if none is."""
    names = list(names)
    near = difflib.get_close_matches(name, names, n=4, cutoff=0.5)
    return f"near: {', '.join(near)}" if near else f"there are: {', '.join(names)}"
