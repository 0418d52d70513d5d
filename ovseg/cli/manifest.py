"""The record of a batch: a line of JSON per run and per file, so that a batch that was stopped can go on.

``manifest.jsonl`` in the output folder is only ever appended to. A line ``{"run": KEY, "settings": ...}``
opens each run; lines ``{"file": ..., "run": KEY, ...}`` follow. The key is a hash of what results rest on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ovseg
from ovseg._files import WriteError
from ovseg.cli.options import EMBEDDED_MODEL
from ovseg.vocab.bank_header import BANK_SUFFIX

if TYPE_CHECKING:
    from ovseg.inference.source_files import SourceFile
    from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["Manifest", "settings_of"]

_VERSIONS = ("torch", "numpy", "Pillow", "opencv-python")
_SETTINGS = (
    "command",
    "method",
    "activation",
    "templates",
    "background",
    "proposals",
    "threshold",
    "masks",
    "detail",
)


def settings_of(args: argparse.Namespace, vocabulary: Vocabulary) -> dict[str, Any]:
    """All that results depend on besides the images, as plain data."""
    settings = {name: getattr(args, name) for name in _SETTINGS if getattr(args, name, None) is not None}
    if args.method is None:
        settings["model"] = args.model or EMBEDDED_MODEL
    for name in ("model", "tower", "proposals"):
        if (value := settings.get(name, getattr(args, name, None))) is not None:
            settings[name] = value
            if os.path.isfile(value):
                settings[f"{name}_file"] = _state(Path(value))
    if args.vocab is not None and args.vocab.endswith(BANK_SUFFIX):  # its rows are not in the vocabulary
        settings["bank_file"] = _state(Path(args.vocab))
    return settings | {"ovseg": ovseg.__version__, "vocabulary": vocabulary.to_dict()}


class Manifest:
    """Writes the record of a run, and knows from earlier ones what is done.

    Args:
        folder: The output folder.
        settings: See ``settings_of``.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder, self.path = folder, folder / "manifest.jsonl"
        self.settings = settings
        self.key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        self._opened = False

    def done(self, formats: Iterable[str]) -> Callable[[SourceFile], bool]:
        """Tells which sources a run with these settings has written in all the formats.

        A source that has changed since, or whose outputs are gone, is not done.
        """
        from ovseg.inference.writers import output_path

        formats = tuple(formats)
        written = self._written(formats)

        def is_done(source: SourceFile) -> bool:
            state = written.get(source.relative.as_posix())
            return (
                state is not None
                and state == _state(source.path)
                and all(output_path(self.folder, source.relative, format).exists() for format in formats)
            )

        return is_done

    def add(
        self, source: SourceFile, formats: Iterable[str], seconds: float | None, error: str | None = None
    ) -> None:
        """Records what became of a file.

        Raises:
            WriteError: The record cannot be written.
        """
        line = {
            "file": source.relative.as_posix(),
            "run": self.key,
            "source": str(source),
            "state": _state(source.path),
            "formats": [] if error else list(formats),
            "seconds": None if seconds is None else round(seconds, 4),
        }
        self._append(line | ({"error": error} if error else {}))

    def _written(self, formats: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """The state of each file that runs with these settings have written in all the formats at last."""
        found: dict[str, tuple[int, ...]] = {}
        if not self.path.is_file():
            return found
        with self.path.open(encoding="utf-8", errors="replace") as file:
            for text in file:
                try:
                    line = json.loads(text)
                    if line["run"] != self.key:
                        continue
                    if set(formats) <= set(line["formats"]):
                        found[line["file"]] = tuple(line["state"])
                    else:
                        found.pop(line["file"], None)
                except (ValueError, KeyError, TypeError):
                    continue  # the last line of a process that was killed, or the head of a run
        return found

    def _append(self, line: Mapping[str, Any]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            text = "" if self._opened else self._head()
            # One write of whole lines to a file that is opened for appending: several processes may share it.
            with self.path.open("ab", buffering=0) as file:
                file.write((text + json.dumps(line) + "\n").encode())
            self._opened = True
        except OSError as error:
            reason = error.strerror or error
            raise WriteError(
                f"cannot write {self.path}: {reason}; without it --resume does all again"
            ) from error

    def _head(self) -> str:
        versions = {"ovseg": ovseg.__version__}
        for name in _VERSIONS:
            try:
                versions[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        head = {"run": self.key, "started": _now(), "settings": self.settings, "versions": versions}
        return ("" if self._ends_whole() else "\n") + json.dumps(head) + "\n"

    def _ends_whole(self) -> bool:
        if not self.path.is_file() or not self.path.stat().st_size:
            return True
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() == b"\n"


def _state(path: Path) -> tuple[int, int] | None:
    """What changes when a file does: its size in bytes and its time in ns. None: it is not there."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
