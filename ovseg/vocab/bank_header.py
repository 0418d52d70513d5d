"""What the file of a text bank says about itself; read without torch."""

from __future__ import annotations

import json
import os
from typing import Any

__all__ = ["BANK_SUFFIX", "FORMAT", "damaged", "read_header"]

BANK_SUFFIX = ".safetensors"
FORMAT = "ovseg text bank 1"


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Vocabulary, templates, tower and so on, as ``ovseg.vocab.bank_file.SavedBank.save`` wrote them.

    Raises:
        ValueError: The file is no bank, or is damaged.
        FileNotFoundError: It is not there.
    """
    from safetensors import SafetensorError, safe_open

    if not os.path.isfile(path):
        raise FileNotFoundError(f"no text bank {os.fspath(path)}; check the path, or write one with "
                                "`ovseg vocab build`")  # fmt: skip
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise ValueError(f"{os.fspath(path)} is no text bank; write one with `ovseg vocab build`")
        about = json.loads(metadata["bank"])
        about["vocabulary"]  # what is no bank's header shows here
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError, OSError) as error:
        raise damaged(path, str(error)) from error
    return about


def damaged(path: str | os.PathLike[str], reason: str) -> ValueError:
    """The error about a file that is no whole bank."""
    return ValueError(f"{os.fspath(path)} is no text bank, or is damaged ({reason}); build it again")
