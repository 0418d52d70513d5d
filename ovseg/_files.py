"""Files that are either whole or absent: the one way in which results, caches and checkpoints are written."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

__all__ = ["WriteError", "atomic_path"]

_CURES = {
    errno.ENOSPC: "the disk is full; free some space or write somewhere else",
    errno.EDQUOT: "the disk quota is used up; free some space or write somewhere else",
    errno.EFBIG: "the file is too large for this file system; write somewhere else",
    errno.EROFS: "the file system is read-only; write somewhere else",
    errno.EACCES: "permission denied; make the folder writable or write somewhere else",
    errno.EPERM: "permission denied; make the folder writable or write somewhere else",
    errno.EIO: "the disk reports an error; check it, or write somewhere else",
    errno.ENOENT: "its folder cannot be made, or was removed meanwhile; choose another path",
    errno.ENOTDIR: "a part of its path is a file, not a folder; choose another path",
    errno.EEXIST: "a part of its path is a file, not a folder; choose another path",
    errno.EISDIR: "it is a folder; give the name of a file",
    errno.ENAMETOOLONG: "the name is too long for this file system; choose a shorter one",
}


class WriteError(OSError):
    """A file could not be written. The message names the file, the reason and the cure."""


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path to write to, and moves it to ``path`` if the block ends without an exception.

    Whoever reads ``path`` sees the old file or the new one, never a half-written one. On any exception,
    Ctrl-C included, the temporary file is removed and an old file at ``path`` stays as it was. Several
    processes may write the same path at once; the last one wins.

    Args:
        path: Where the file shall be. Missing folders are made.

    Yields:
        A path in the same folder (so that the move is atomic), hidden, with the same suffix (libraries
        choose the format by it). Nothing exists there yet.

    Raises:
        WriteError: The folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    temporary = path.parent / f".ovseg-{secrets.token_hex(8)}{path.suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():  # Windows would say "permission denied"; said here before the work is done
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and _is_ours(error, path, temporary):
            raise _write_error(error, path) from error
        raise


def _is_ours(error: OSError, path: Path, temporary: Path) -> bool:
    """Whether ``error`` is about writing here, and not about another file that the block reads."""
    if isinstance(error, WriteError) or error.errno not in _CURES:
        return False
    named = error.filename
    return not isinstance(named, str | os.PathLike) or Path(named) in (temporary, path, *path.parents)


def _write_error(error: OSError, path: Path) -> WriteError:
    translated = WriteError(f"cannot write {path}: {_CURES[error.errno or 0]}")
    translated.errno = error.errno
    return translated
