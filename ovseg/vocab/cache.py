"""Disk cache of text embeddings: one safetensors file per text tower and prompt set, one row per word.

Rows, not whole vocabularies, are kept, so that a vocabulary that shares words with an earlier one (the
background words of every run, a class added to a list) encodes only what is new. Everything but the word that
decides a row goes into the key: weights, architecture, tokenizer, templates, average.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ovseg._files import WriteError, atomic_path
from ovseg.towers.download import cache_dir
from ovseg.towers.text import TextTransformer

__all__ = ["TextCache", "bank_key", "tower_key", "weights_hash"]

_FORMAT = 1
_FILE_BYTES = 2**28
_FOLDER_BYTES = 2**30


class TextCache:
    """Rows (T, C) by word, in ``folder``.

    A file that cannot be read is deleted and counts as empty. A cache that cannot be written is no error: the
    rows are encoded again next time. A file keeps its newest rows up to 256 MB; beyond 1 GB the least
    recently used files of the folder are deleted. Deleting the folder is always safe.

    Args:
        folder: Default ``text`` in ``OVSEG_CACHE``, or in ``~/.cache/ovseg``.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = Path(folder) if folder is not None else cache_dir() / "text"

    def get(self, key: str, words: Sequence[str]) -> dict[str, Tensor]:
        """The rows (T, C) float32 of those words that the cache has."""
        path = self._path(key)
        try:
            with safe_open(path, framework="pt") as file:
                place = {word: i for i, word in enumerate(json.loads(file.metadata()["words"]))}
                known = [word for word in words if word in place]
                at = [place[word] for word in known]
                rows = file.get_tensor("rows")[at]
                sums = file.get_tensor("sums")[at].tolist()
            with contextlib.suppress(OSError):
                os.utime(path)  # "recently used", for the clean-up
            found = zip(known, rows, sums)
            return {word: row for word, row, sum_ in found if _checksum(word, row) == sum_}
        except FileNotFoundError:
            return {}
        except (SafetensorError, KeyError, TypeError, ValueError, IndexError, RuntimeError, OSError):
            with contextlib.suppress(OSError):
                path.unlink()
            return {}

    def put(self, key: str, rows: Mapping[str, Tensor]) -> None:
        """Adds rows (T, C) float32; whoever reads meanwhile sees the old file or the new one."""
        if not rows:
            return
        merged = {**self._all(key), **rows}
        size = next(iter(rows.values())).numel() * 4
        kept = dict(list(merged.items())[-max(1, _FILE_BYTES // size) :])
        tensors = {
            "rows": torch.stack(list(kept.values())).contiguous(),
            "sums": torch.tensor([_checksum(word, row) for word, row in kept.items()]),
        }
        with contextlib.suppress(WriteError, SafetensorError), atomic_path(self._path(key)) as temporary:
            save_file(tensors, temporary, {"words": json.dumps(list(kept))})
        self._clean(keep=self._path(key))

    def _all(self, key: str) -> dict[str, Tensor]:
        with contextlib.suppress(SafetensorError, KeyError, TypeError, ValueError, OSError):
            with safe_open(self._path(key), framework="pt") as file:
                words = json.loads(file.metadata()["words"])
            return self.get(key, words)
        return {}

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _clean(self, keep: Path) -> None:
        with contextlib.suppress(OSError):
            files = [(path, path.stat()) for path in self.folder.glob("*.safetensors") if path != keep]
            total = keep.stat().st_size
            for path, stat in sorted(files, key=lambda item: item[1].st_mtime, reverse=True):
                total += stat.st_size
                if total > _FOLDER_BYTES:
                    path.unlink(missing_ok=True)


def bank_key(tower: TextTransformer, tokenizer_identity: str, templates: Sequence[str], average: str) -> str:
    """The name of the cache file of everything that these encode."""
    return _digest([_FORMAT, *_identity(tower, tokenizer_identity), list(templates), average])


def tower_key(tower: TextTransformer, tokenizer_identity: str) -> str:
    """What tells a text tower, with its tokenizer, from all others."""
    return _digest(_identity(tower, tokenizer_identity))


def _identity(tower: TextTransformer, tokenizer_identity: str) -> list[str]:
    return [weights_hash(tower), repr(tower.config), tokenizer_identity]


def _digest(parts: list[object] | list[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]


_HASHES: WeakKeyDictionary[nn.Module, tuple[tuple[object, ...], str]] = WeakKeyDictionary()


def weights_hash(module: nn.Module) -> str:
    """sha256 over the names, types, shapes and bytes of a module's tensors.

    Computed once per module (about 0.15 s for ViT-B/16's text tower), and again when its weights have changed
    in place (an optimiser step, ``load_state_dict``) or been replaced (``to``).
    """
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    state = tuple((t.data_ptr(), t.dtype, 0 if t.is_inference() else t._version) for t in tensors.values())
    known = _HASHES.get(module)
    if known is not None and known[0] == state:
        return known[1]
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(_bytes(tensor))
    _HASHES[module] = state, digest.hexdigest()
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _checksum(word: str, row: Tensor) -> int:
    # With the word: words and rows come from two files where another process replaced it in between.
    return zlib.crc32(_bytes(row), zlib.crc32(word.encode()))
