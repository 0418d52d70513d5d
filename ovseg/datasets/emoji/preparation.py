"""Installs the drawings from npm and renders them: needs npm and ``pip install ovseg[emoji]``."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovseg._files import atomic_path
from ovseg.datasets.emoji.drawings import ARTISTS, Artist
from ovseg.datasets.emoji.words import Word, word_table

__all__ = ["data_card", "fit", "install", "prepare", "render"]

_MARGIN = 0.02  # of the size, so that rotated drawings keep soft edges
_MIN_COVER = 0.02  # drawings that cover less are blank or a hairline
_Names = dict[str, list[str]]


def prepare(folder: Path, size: int = 128, artists: tuple[Artist, ...] = ARTISTS) -> Counter[str]:
    """Installs and renders; writes ``drawings.npz`` and ``CARD.md`` into ``folder``.

    Args:
        folder: Where to; the packages go into its ``npm`` folder.
        size: Pixels of a drawing, a multiple of 4.
        artists: Whose drawings.

    Returns:
        The number of drawings by artist.

    Raises:
        RuntimeError: npm is missing, or a package does not state the version and licence relied on.
    """
    modules = install(folder / "npm", artists)
    for artist in artists:
        check_licence(modules, artist)
    counts = render(modules, folder / "drawings.npz", size, artists)
    with atomic_path(folder / "CARD.md") as path:
        path.write_text(data_card(counts), encoding="utf-8")
    return counts


def install(folder: Path, artists: tuple[Artist, ...] = ARTISTS) -> Path:
    """``npm install`` of exactly the pinned versions, without running anything of theirs."""
    if shutil.which("npm") is None:
        raise RuntimeError("npm is not installed: it comes with Node.js (https://nodejs.org)")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text('{"private": true}\n')
    pinned = [f"{artist.package}@{artist.version}" for artist in artists]
    flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--save-exact"]
    subprocess.run(["npm", "install", *flags, *pinned], cwd=folder, check=True)
    return folder / "node_modules"


def check_licence(modules: Path, artist: Artist) -> None:
    """Stops if a package does not state the licence and version that we rely on."""
    folder = modules / artist.package
    stated = json.loads((folder / "package.json").read_text())
    licence = stated.get("license")
    if (folder / "info.json").is_file():
        licence = json.loads((folder / "info.json").read_text())["license"]["spdx"]
    if (stated["version"], licence) != (artist.version, artist.licence):
        raise RuntimeError(
            f"{artist.package}: expected {artist.version} under {artist.licence}, "
            f"found {stated['version']} under {licence}"
        )


def render(modules: Path, path: Path, size: int, artists: tuple[Artist, ...] = ARTISTS) -> Counter[str]:
    """Renders every drawing of every word into ``path``; returns their number by artist."""
    codes = json.loads((modules / "@iconify-json/twemoji/chars.json").read_text())
    code_of = {name: code for code, name in reversed(codes.items())}
    pixels: list[NDArray[np.uint8]] = []
    words: list[int] = []
    makers: list[str] = []
    for artist in artists:
        reader = _photos if artist.name == "fluent-3d" else _vectors
        source = reader(modules / artist.package, artist, code_of, size)
        for index, image in source:
            if (drawing := fit(image, size)) is not None:
                pixels.append(drawing)
                words.append(index)
                makers.append(artist.name)
        print(f"{artist.name}: {makers.count(artist.name)} drawings", flush=True)
    names = [word.name for word in word_table().words]
    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary,
            pixels=np.stack(pixels),
            words=np.array(words, np.int16),
            artists=np.array(makers),
            word_names=np.array(names),
        )
    return Counter(makers)


def _vectors(
    folder: Path, artist: Artist, code_of: dict[str, str], size: int
) -> Iterator[tuple[int, Image.Image]]:
    """(word index, RGBA image) of an Iconify set."""
    icons = json.loads((folder / "icons.json").read_text())
    names = _names(icons)
    for index, word in enumerate(word_table().words):
        for icon in dict.fromkeys(_icons_of(word, artist, names)):
            yield index, _render(icons, icon, 2 * size)


def _photos(
    folder: Path, artist: Artist, code_of: dict[str, str], size: int
) -> Iterator[tuple[int, Image.Image]]:
    """(word index, RGBA image) of a folder of pictures named by code points."""
    files = {path.stem.replace("-fe0f", ""): path for path in sorted((folder / "assets").glob("*.webp"))}
    for index, word in enumerate(word_table().words):
        for name in word.cldr:
            code = code_of.get(name, "").replace("-fe0f", "")
            if code in files:
                yield index, Image.open(files[code]).convert("RGBA")


def _names(icons: dict[str, Any]) -> _Names:
    """Icon names by CLDR name: some sets number several drawings of one name, "apple-1", "apple-2"."""
    table: _Names = {}
    for name in [*icons["icons"], *icons.get("aliases", {})]:
        table.setdefault(re.sub(r"-\d$", "", name), []).append(name)
    return table


def _icons_of(word: Word, artist: Artist, names: _Names) -> Iterator[str]:
    if artist.name == "fxemoji":
        yield from (name for name in word.fxemoji if name in names)
    else:
        for name in word.cldr:
            yield from names.get(name, ())


def _render(icons: dict[str, Any], name: str, size: int) -> Image.Image:
    import resvg_py

    while name in icons.get("aliases", {}):
        name = icons["aliases"][name]["parent"]
    icon = icons["icons"][name]
    width, height = (icon.get(k, icons.get(k, 16)) for k in ("width", "height"))
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" width="{size}" height="{size}">{icon["body"]}</svg>'
    )
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True))
    return Image.open(BytesIO(png)).convert("RGBA")


def fit(image: Image.Image, size: int) -> NDArray[np.uint8] | None:
    """Cut to what is drawn, centred on a square of ``size`` pixels; None if next to nothing is drawn."""
    box = image.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox()
    if box is None or (np.asarray(image.getchannel("A")) > 127).mean() < _MIN_COVER:
        return None
    image = image.crop(box)
    side = round(max(image.size) * (1 + 2 * _MARGIN))
    square = Image.new("RGBA", (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS))


def data_card(counts: Counter[str]) -> str:
    """Markdown: where the drawings come from and what their licences ask."""
    rows = "\n".join(
        f"| {a.name} | {a.package} {a.version} | {a.licence} | {a.split} | {counts[a.name]} "
        f"| {a.attribution} |"
        for a in ARTISTS
        if a.name in counts
    )
    table = word_table()
    groups = ", ".join(f"{len(table.select(g))} {g}" for g in ("base", "novel", "unknown"))  # type: ignore[arg-type]
    return (
        "# EmojiScenes: drawings\n\n"
        f"Words: {groups}; names and synonyms from Unicode CLDR's emoji names and tags\n"
        "(Unicode licence v3).\n"
        "Drawings are cut to their content and scaled; scenes recolour, turn and combine them.\n\n"
        "| artist | npm package | licence | split | drawings | attribution |\n"
        "|---|---|---|---|---|---|\n" + rows + "\n"
    )
