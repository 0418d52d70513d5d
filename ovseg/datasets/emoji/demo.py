"""The two scenes that ``ovseg demo`` shows: composed by hand from the held-out artist's drawings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ovseg._files import atomic_path
from ovseg.datasets.emoji.compose import Pose, Scene, paste
from ovseg.datasets.emoji.drawings import ARTISTS, Drawings
from ovseg.datasets.emoji.preparation import prepare
from ovseg.datasets.emoji.randomness import random_state
from ovseg.datasets.emoji.textures import TEXTURES, draw_texture

__all__ = ["DEMO_SCENES", "DemoScene", "compose_demo", "write_demo"]

_SIZE = 448
_TEXTURE_SIZE = 224  # textures are drawn at the scale they have in training, then doubled like the objects
_DRAWING = 256
_SHADOW = 4


@dataclass(frozen=True)
class DemoScene:
    """A scene that is laid out by hand.

    Attributes:
        name: Of its files.
        texture: What it stands on.
        seed: Of the texture.
        objects: (word, centre x, centre y, size in pixels, degrees) in the order of drawing.
    """

    name: str
    texture: str
    seed: int
    objects: tuple[tuple[str, int, int, int, int], ...]


DEMO_SCENES: tuple[DemoScene, ...] = (
    DemoScene(
        "meadow",
        "grass",
        4,
        (
            ("house", 116, 112, 150, 0),
            ("sunflower", 336, 112, 150, 0),
            ("cow", 108, 326, 138, 0),
            ("car", 330, 268, 130, 0),
            ("umbrella", 246, 380, 112, -12),
        ),
    ),
    DemoScene(
        "beach",
        "sand",
        9,
        (
            ("palm tree", 112, 124, 170, 0),
            ("sailboat", 318, 104, 152, 0),
            ("soccer ball", 92, 350, 108, 0),
            ("crab", 236, 252, 118, 0),
            ("watermelon", 232, 390, 100, 10),
            ("cat", 364, 322, 150, 0),
        ),
    ),
)


def compose_demo(demo: DemoScene, drawings: Drawings) -> Scene:
    """Draws a demo scene with the first of the test artist's drawings of each word."""
    rng = random_state(tuple(TEXTURES).index(demo.texture), demo.seed)
    texture = draw_texture(demo.texture, rng, _TEXTURE_SIZE)
    image = texture.repeat(_SIZE // _TEXTURE_SIZE, 0).repeat(_SIZE // _TEXTURE_SIZE, 1)
    instances = np.zeros((_SIZE, _SIZE), np.uint8)
    words = tuple(drawings.table.index(word) for word, *_ in demo.objects)
    chosen = drawings.select("test", words)
    for number, (word, (_, x, y, size, degrees)) in enumerate(zip(words, demo.objects), start=1):
        drawing = drawings.level_for(size)[chosen[word][0]]
        paste(image, instances, drawing, Pose(x, y, size, size, degrees), number, _SHADOW)
    return Scene(image, instances, words, drawings.table.textures.index(demo.texture))


def write_demo(folder: Path, cache: Path) -> None:
    """Writes the scenes, their masks and ``scenes.json``.

    ``scenes.json`` lists for each scene ``file``, ``mask`` (an indexed PNG whose values are positions in
    ``classes``), ``classes`` (the objects, then the texture) and ``attribution``.

    Args:
        folder: Where to.
        cache: Where the drawings are rendered, larger than for training.

    Raises:
        RuntimeError: The drawings cannot be installed; see ``prepare``.
    """
    from ovseg.vocab.vocabulary import Vocabulary

    artist = next(artist for artist in ARTISTS if artist.split == "test")
    if not (cache / "drawings.npz").is_file():
        prepare(cache, _DRAWING, (artist,))
    drawings = Drawings.load(cache / "drawings.npz")
    rows = []
    for demo in DEMO_SCENES:
        scene = compose_demo(demo, drawings)
        classes = [*(word for word, *_ in demo.objects), demo.texture]
        mask = Image.fromarray(((scene.instances + len(classes) - 1) % len(classes)).astype(np.uint8), "P")
        mask.putpalette(Vocabulary.of(classes).palette.tobytes())
        files = {"file": f"{demo.name}.png", "mask": f"{demo.name}_mask.png"}
        for name, image in zip(files.values(), (Image.fromarray(scene.image), mask)):
            with atomic_path(folder / name) as path:
                image.save(path, optimize=True)
        rows.append({**files, "classes": classes, "attribution": artist.attribution})
    with atomic_path(folder / "scenes.json") as path:
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
