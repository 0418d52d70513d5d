"""Fetching weights: resumed, verified, and with an error that says what to fetch by hand."""

from __future__ import annotations

import contextlib
import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import urlsplit

__all__ = [
    "WeightsSource",
    "WeightsUnavailableError",
    "cache_dir",
    "download",
    "fetch_weights",
    "is_offline",
]

_CHUNK = 1 << 20
_ATTEMPTS = 5  # that bring nothing new, in a row
_TIMEOUT = 30.0  # seconds without a byte


class WeightsUnavailableError(OSError):
    """Weights are not on this machine and could not be fetched. The message says what to put where."""


class WeightsSource(Protocol):
    """Where weights are: the fields of ``TowerInfo`` and ``AuxiliaryInfo`` that are read here."""

    @property
    def name(self) -> str:
        """Of the weights."""

    @property
    def sources(self) -> tuple[str, ...]:
        """URLs, ``hf:`` repositories or paths."""

    @property
    def sha256(self) -> str | None:
        """Of the file at a URL."""

    @property
    def hub_files(self) -> tuple[str, ...]:
        """File names in the repositories."""


def cache_dir() -> Path:
    """Where weights are kept: ``OVSEG_CACHE``, or ``~/.cache/ovseg``."""
    return Path(os.environ.get("OVSEG_CACHE") or "~/.cache/ovseg").expanduser()


def is_offline() -> bool:
    """Whether ``OVSEG_OFFLINE`` or ``HF_HUB_OFFLINE`` forbids any network access."""
    values = (os.environ.get(name, "") for name in ("OVSEG_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value.lower() in ("1", "true", "yes", "on") for value in values)


def fetch_weights(info: WeightsSource, *, allow_download: bool = True) -> Path:
    """The path of a tower's weights, fetched if they are not here yet.

    A file that was put into ``cache_dir() / "towers" / <name>`` by hand counts, as does one in the cache of
    the Hugging Face Hub.

    Args:
        info: From ``tower_info`` or ``auxiliary_info``.
        allow_download: False to look on this machine only, as under ``OVSEG_OFFLINE=1``.

    Raises:
        WeightsUnavailableError: Not here, and not allowed or not possible to fetch.
    """
    here = _find(info)
    if here is not None:
        return here
    if not allow_download:
        why = "downloads are not allowed here"
    elif is_offline():
        why = "downloads are switched off by OVSEG_OFFLINE or HF_HUB_OFFLINE"
    else:
        reasons = []
        for source in info.sources:
            try:
                return _fetch(source, info)
            except (OSError, HTTPException, ValueError) as error:
                reasons.append(f"{_host(source)}: {_one_line(error)}")
        why = "; ".join(reasons) or "there is no address to fetch them from"
    raise WeightsUnavailableError(
        f"the weights of {info.name} are not on this machine ({why}). {_cure(info)}"
    )


def _folder(info: WeightsSource) -> Path:
    return cache_dir() / "towers" / info.name


def _find(info: WeightsSource) -> Path | None:
    """The weights, if they are on this machine: put or fetched into our cache, or in the Hub's."""
    from huggingface_hub import try_to_load_from_cache

    urls = [_basename(source) for source in info.sources if not source.startswith("hf:")]
    for name in (*urls, *info.hub_files):
        if (_folder(info) / name).is_file():
            return _folder(info) / name
    for source in info.sources:
        if Path(source).is_file():  # embedded
            return Path(source)
        # The Hub's usual cache (None) is looked into as well: open_clip may have filled it.
        for folder in (cache_dir() / "hub", None) if source.startswith("hf:") else ():
            for name in info.hub_files:
                found = try_to_load_from_cache(source[3:], name, cache_dir=folder)
                if isinstance(found, str):
                    return Path(found)
    return None


def _fetch(source: str, info: WeightsSource) -> Path:
    if source.startswith("hf:"):
        return _from_hub(source[3:], info.hub_files)
    return download(source, _folder(info) / _basename(source), sha256=info.sha256)


def _cure(info: WeightsSource) -> str:
    pages = (
        f"https://huggingface.co/{s[3:]}/resolve/main/{info.hub_files[0]}" if s.startswith("hf:") else s
        for s in info.sources
    )
    folder = cache_dir() / "towers" / info.name
    if not info.sources:
        return f"Download {info.hub_files[0]} by hand from its authors' page and put it into {folder}"
    return (
        f"Fetch {' or '.join(pages)} where there is a network and put the file, its name kept, into {folder}"
    )


def _basename(url: str) -> str:
    return Path(urlsplit(url).path).name


def _host(source: str) -> str:
    return "huggingface.co" if source.startswith("hf:") else urlsplit(source).netloc


def _one_line(error: BaseException) -> str:
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        return f"cannot be reached ({error.reason})"
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


def _from_hub(repository: str, files: tuple[str, ...]) -> Path:
    """Fetches the weights of a repository of the Hub into our cache.

    Raises:
        OSError: Not there, or the Hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download

    for name in files:
        if _is_on_hub(repository, name):
            return Path(hf_hub_download(repository, name, cache_dir=cache_dir() / "hub"))
    raise FileNotFoundError(f"{repository} holds neither {' nor '.join(files)}")


def _is_on_hub(repository: str, name: str) -> bool:
    """Asked here, because the Hub's own client waits 25 s before it says that there is no network."""
    from huggingface_hub import hf_hub_url

    request = urllib.request.Request(hf_hub_url(repository, name), method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT):
            return True
    except urllib.error.HTTPError as error:
        return error.code != 404  # whatever else there is, the client explains better


def download(url: str, target: Path, *, sha256: str | None = None) -> Path:
    """Fetches a file; a broken transfer goes on where it stopped, in this run and in later ones.

    What has arrived is kept in ``<target>.part`` until the file is whole and verified.

    Args:
        url: http or https.
        target: Where the file shall be. Missing folders are made.
        sha256: Expected checksum, or its first digits.

    Raises:
        OSError: The server cannot be reached, answers with an error, or keeps breaking off.
        ValueError: The checksum differs; the file is removed.
    """
    from filelock import FileLock

    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if target.is_file():  # another process was faster
            return target
        part = target.with_name(target.name + ".part")
        _complete(url, part)
        if sha256:
            _verify(part, sha256, url)
        os.replace(part, target)
    return target


def _complete(url: str, part: Path) -> None:
    """Brings ``part`` to its full length, asking again as long as that brings something."""
    idle = 0
    error: Exception | None = None
    while idle < _ATTEMPTS:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _transfer(url, part):
                return
        except urllib.error.HTTPError as failure:
            if failure.code < 500:
                raise OSError(f"the server answers {failure.code} {failure.reason} to {url}") from failure
            error = failure
        except (TimeoutError, ConnectionResetError, HTTPException) as failure:
            error = failure
        grown = part.exists() and part.stat().st_size > before
        idle = 0 if grown else idle + 1
    reason = f": {_one_line(error)}" if error else ""
    raise OSError(f"the transfer of {url} keeps breaking off{reason}; run again to go on where it stopped")


def _transfer(url: str, part: Path) -> bool:
    """One request for what is missing of ``part``; whether the file is whole afterwards."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return True
        part.unlink()  # longer than the file: a leftover of something else
        return False
    with response:
        resumed = response.status == 206
        start = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with open(part, "ab" if resumed else "wb") as file, _progress(part.stem, start, total) as advance:
            _copy(response, file, advance)
    return total is None or part.stat().st_size == total


def _copy(response: IO[bytes], file: IO[bytes], advance: Callable[[int], None]) -> None:
    while chunk := response.read(_CHUNK):
        file.write(chunk)
        advance(len(chunk))


@contextlib.contextmanager
def _progress(name: str, start: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error; yields the function to call with the number of new bytes."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=total, completed=start)
        yield lambda count: bar.advance(task, count)


def _verify(part: Path, sha256: str, url: str) -> None:
    digest = hashlib.sha256()
    with open(part, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    if not digest.hexdigest().startswith(sha256):
        part.unlink()
        raise ValueError(
            f"{url} has the sha256 {digest.hexdigest()}, expected {sha256}; the file was removed: try again, "
            f"and if that repeats, something on the way alters it"
        )
