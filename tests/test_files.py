from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ovseg._files import WriteError, atomic_path


def test_file_appears_whole_with_its_folders(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "out.png"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent and temporary.suffix == ".png"
        temporary.write_bytes(b"half")
        assert not target.exists()
    assert target.read_bytes() == b"half"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_failure_keeps_the_old_file_and_leaves_nothing(tmp_path: Path, failure: type[BaseException]) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(failure), atomic_path(target) as temporary:
        temporary.write_text("new, but")
        raise failure
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_full_disk_is_named_and_cleaned_up(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    with (
        pytest.raises(WriteError, match=r"out\.txt: the disk is full") as info,
        atomic_path(target) as temporary,
    ):
        temporary.write_text("some")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert info.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_folder_as_target_and_file_as_folder(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="it is a folder"), atomic_path(tmp_path):
        pytest.fail("the block must not run")
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "file" / "out.txt", tmp_path / "file" / "deeper" / "out.txt"):
        with pytest.raises(WriteError, match="not a folder"), atomic_path(target):
            pytest.fail("the block must not run")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(WriteError, match="permission denied"), atomic_path(tmp_path / "x.txt") as temporary:
        temporary.write_text("new")


def test_name_at_the_limit_of_the_file_system(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 251 + ".txt")
    with atomic_path(target) as temporary:
        temporary.write_text("long")
    assert target.read_text() == "long"
    with (
        pytest.raises(WriteError, match="too long"),
        atomic_path(tmp_path / ("n" * 300 + ".txt")) as temporary,
    ):
        temporary.write_text("too long")


def test_folder_that_vanishes_meanwhile(tmp_path: Path) -> None:
    with (
        pytest.raises(WriteError, match="was removed meanwhile"),
        atomic_path(tmp_path / "a" / "x") as temporary,
    ):
        temporary.parent.rmdir()
        temporary.write_text("new")


def test_an_error_about_another_file_is_not_ours(tmp_path: Path) -> None:
    other = PermissionError(errno.EACCES, "denied", "/somewhere/else.jpg")
    with pytest.raises(PermissionError) as info, atomic_path(tmp_path / "out.txt"):
        raise other
    assert info.value is other
