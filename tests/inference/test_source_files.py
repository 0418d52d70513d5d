"""Files, folders, patterns and lists: in order, once, and light to hold."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from ovseg.inference.source_files import SourceFiles, expand_sources


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "b.jpg",
        "a.PNG",
        "sub/a.png",
        "sub/deep/z.webp",
        ".hidden.jpg",
        ".cache/x.jpg",
        "notes.txt",
    ):
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for output in ("b.jpg.overlay.png", "b.jpg.labels.png", "sub/a.png.panoptic.png", "b.jpg.labels.json"):
        (tmp_path / "album" / output).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "album"


def relatives(*arguments: str | Path) -> list[str]:
    return [source.relative.as_posix() for source in expand_sources(arguments)]


def test_folder_is_searched_in_order_without_hidden_files_and_outputs(album: Path) -> None:
    assert relatives(album) == ["a.PNG", "b.jpg", "sub/a.png", "sub/deep/z.webp"]
    assert relatives("album/sub") == ["a.png", "deep/z.webp"]
    assert [source.path for source in expand_sources(["album/sub"])] == [
        Path("album/sub/a.png"),
        Path("album/sub/deep/z.webp"),
    ]


def test_patterns(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert relatives("album/*.jpg") == ["b.jpg"]
    assert relatives("album/**/*.png") == ["sub/a.png"]
    assert relatives(str(album / "s*" / "*.png")) == ["sub/a.png"]
    assert relatives("album/*") == ["a.PNG", "b.jpg"]
    monkeypatch.chdir(album)
    assert relatives("*.jpg", "**/*.webp") == ["b.jpg", "sub/deep/z.webp"]


def test_named_files_of_any_kind_and_once(album: Path) -> None:
    assert relatives("album/notes.txt", "album/b.jpg", album, album / "b.jpg") == [
        "notes.txt",
        "b.jpg",
        "a.PNG",
        "sub/a.png",
        "sub/deep/z.webp",
    ]
    (album / "a[1].jpg").touch()
    assert relatives("album/a[1].jpg") == ["a[1].jpg"]


def test_two_files_of_one_name_keep_their_folders(album: Path) -> None:
    (album / "other").mkdir()
    (album / "other" / "a.png").touch()
    assert relatives("album/sub", "album/other") == ["sub/a.png", "sub/deep/z.webp", "other/a.png"]
    assert relatives("album/other/a.png", "album/sub/a.png") == ["other/a.png", "sub/a.png"]


def test_a_missing_file_stays_beside_its_neighbours(album: Path) -> None:
    assert relatives("album/gone.jpg", "album/b.jpg") == ["gone.jpg", "b.jpg"]
    with pytest.raises(ValueError, match=r"gone\.jpg: no such file"):
        expand_sources(["album/gone.jpg"])


@pytest.mark.parametrize("arguments", [[], ["empty"], ["album/*.tiff"], ["album/b.jpg", "empty"]])
def test_nothing_found(album: Path, arguments: list[str]) -> None:
    (album.parent / "empty").mkdir()
    with pytest.raises(ValueError, match="no images"):
        expand_sources(arguments)


def test_links_to_folders_do_not_trap_the_search(album: Path) -> None:
    (album / "sub" / "loop").symlink_to(album, target_is_directory=True)
    assert relatives(album) == ["a.PNG", "b.jpg", "sub/a.png", "sub/deep/z.webp"]


def test_order_is_that_of_the_paths(tmp_path: Path) -> None:
    """Folders stand among files by their name, whatever characters come after it."""
    names = ["a-b.png", "a.png", "a/b.png", "a/b/c.png", "a/b0.png", "ab.png", "b/a.png", "B.png"]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    ordered = sorted(map(Path, names))
    assert relatives(tmp_path) == [path.as_posix() for path in ordered]
    chosen = expand_sources([tmp_path]).select(lambda source: "b" in source.relative.name)
    assert [source.relative for source in chosen] == [path for path in ordered if "b" in path.name]
    assert chosen[1:2][0].path == tmp_path / chosen[1].relative


@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_million_files_are_light(tmp_path: Path, one_by_one: bool) -> None:
    """Measured on 3000: under 250 bytes a file, whether found in a folder or named one by one."""
    held = []
    for folder in (tmp_path / "some_folder_of_pictures", tmp_path / "another_folder_of_pictures"):
        folder.mkdir()
        names = [str(folder / f"picture_of_{folder.name}_{i:07}.jpg") for i in range(3000)]
        for name in names:
            Path(name).touch()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        sources = expand_sources(names if one_by_one else [folder])
        held.append(tracemalloc.get_traced_memory()[0] - before)
        tracemalloc.stop()
        assert len(sources) == 3000 and isinstance(sources, SourceFiles)
    assert min(held) < 250 * 3000  # one of the two may meet Python's table of all names when it grows
