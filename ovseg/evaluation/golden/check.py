"""Runs every case of a directory."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import ovseg.evaluation.golden as package
from ovseg.evaluation.golden.case import Case, Check, compare
from ovseg.evaluation.golden.parts import check_parts

__all__ = ["check_directory", "known_methods"]

_NOT_METHODS = {"case", "check", "external", "parts", "windows"}


def known_methods() -> list[str]:
    """Folders of cases that can be checked."""
    names = {module.name for module in pkgutil.iter_modules(package.__path__)}
    return sorted(names - _NOT_METHODS)


def check_directory(directory: Path, method: str | None = None) -> Iterator[Check]:
    """Checks cases one after the other.

    Args:
        directory: Holds a folder of ``.npz`` cases for each method, or is such a folder; or is a JSON file of
            vectors for single parts.
        method: Only this folder.

    Yields:
        A check per quantity. A method that is unknown, a case that cannot be read or run, and an output that
        is not computed are checks that fail.

    Raises:
        ValueError: There is nothing to check.
    """
    if directory.is_file():
        yield from check_parts(directory)[0]
        return
    folders = (
        [directory] if any(directory.glob("*.npz")) else sorted(p for p in directory.glob("*") if p.is_dir())
    )
    chosen = [folder for folder in folders if method in (None, folder.name)]
    if not chosen:
        there = ", ".join(folder.name for folder in folders) or "no folders"
        raise ValueError(f"{directory} has no cases of {method or 'any method'}; it holds {there}")
    for folder in chosen:
        yield from _check_folder(folder)


def _check_folder(folder: Path) -> Iterator[Check]:
    if folder.name not in known_methods():
        yield _problem(folder.name, "*", f"unknown method; known: {', '.join(known_methods())}")
        return
    module = importlib.import_module(f"{package.__name__}.{folder.name}")
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        yield _problem(folder.name, "*", "no cases")
    for path in paths:
        try:
            case = Case.read(path)
            with torch.no_grad():
                ours = module.outputs(case)
        except Exception as error:  # a case that breaks our code is a miss, and the others are still wanted
            yield _problem(folder.name, path.stem, f"{type(error).__name__}: {error}")
            continue
        for quantity in case.meta["outputs"]:
            yield compare(case, quantity, ours.get(quantity), ours.get(f"{quantity}.undecided"))


def _problem(method: str, case: str, problem: str) -> Check:
    return Check(method, case, "*", np.nan, np.nan, problem)
