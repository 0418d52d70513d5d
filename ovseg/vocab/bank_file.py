"""Text banks as files: the embeddings of a vocabulary, for use without a text tower."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ovseg._files import atomic_path
from ovseg.vocab.text_bank import TextBank
from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["load_bank", "save_bank"]

_FORMAT = "ovseg text bank 1"


def save_bank(
    bank: TextBank, path: str | os.PathLike[str], *, tower: str, templates: str | Sequence[str]
) -> Path:
    """Writes a bank as safetensors: ``rows`` (Q, T, C), ``word_to_class`` (Q,), the rest in its metadata.

    Args:
        bank: What is written.
        path: Its name.
        tower: Name of the weights that made it; only their images fit.
        templates: That it was made with.

    Raises:
        WriteError: The file cannot be written.
    """
    path = Path(path)
    about = {
        "tower": tower,
        "templates": templates if isinstance(templates, str) else list(templates),
        "normalised": bank.normalised,
        "vocabulary": bank.vocabulary.to_dict(),
    }
    tensors = {
        "rows": bank.rows.detach().cpu().contiguous(),
        "word_to_class": bank.word_to_class.cpu().contiguous(),
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {"format": _FORMAT, "bank": json.dumps(about)})
    return path


def load_bank(path: str | os.PathLike[str]) -> tuple[TextBank, str]:
    """The bank in a file, and the name of the weights that made it.

    Raises:
        ValueError: The file is no bank, or is damaged.
        FileNotFoundError: It is not there.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise ValueError(f"{os.fspath(path)} is no text bank; write one with `ovseg vocab build`")
            about = json.loads(metadata["bank"])
            rows, owners = file.get_tensor("rows"), file.get_tensor("word_to_class")
        vocabulary = Vocabulary.from_dict(about["vocabulary"])
        if rows.dim() != 3 or tuple(owners.tolist()) != vocabulary.word_to_class or len(rows) != len(owners):
            raise KeyError("rows")
        return TextBank(rows, about["normalised"], owners, vocabulary), about["tower"]
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{os.fspath(path)} is damaged ({error}); build it again") from error
