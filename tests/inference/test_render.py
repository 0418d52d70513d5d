from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ovseg.inference import fonts, render
from ovseg.inference.fonts import FontChain, shorten
from ovseg.inference.legend import LegendEntry, add_legend
from ovseg.inference.render import overlay
from ovseg.vocab.vocabulary import Vocabulary

TWO = Vocabulary.of(["road", "car"])
PAPER = np.array([252, 252, 252])


def halves(height: int, width: int) -> np.ndarray:
    label_map = np.zeros((height, width), np.int32)
    label_map[:, width // 2 :] = 1
    return label_map


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def numbered(k: int) -> Vocabulary:
    return Vocabulary.of([f"class number {i}" for i in range(k)])


def has_colour(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((picture == np.array(colour)).all(axis=-1).any())


def test_colours_are_mixed_with_the_image_by_alpha() -> None:
    image, label_map = noise(40, 60), halves(40, 60)
    for alpha in (0.0, 0.25, 1.0):
        painted = overlay(image, label_map, TWO, alpha=alpha, contours=False, legend=False)
        expected = (1 - alpha) * image + alpha * TWO.palette[label_map]
        np.testing.assert_allclose(painted, expected, atol=1.01)


def test_unlabelled_pixels_keep_their_brightness_and_get_no_colour() -> None:
    image = noise(40, 60)
    label_map = np.full((40, 60), -1, np.int32)
    painted = overlay(image, label_map, TWO, legend=False)
    np.testing.assert_allclose(painted.mean(axis=-1), image.mean(axis=-1), atol=1.5)
    assert np.ptp(painted, axis=-1).mean() < 0.6 * np.ptp(image, axis=-1).mean()


def test_contours_run_along_borders_only_and_grow_with_the_picture() -> None:
    for height, width, thickness in ((40, 60, 1), (1500, 1500, 2), (2400, 2400, 4)):
        label_map = halves(height, width)
        image = np.zeros((height, width, 3), np.uint8)
        plain = overlay(image, label_map, TWO, contours=False, legend=False)
        drawn = overlay(image, label_map, TWO, legend=False)
        columns = np.flatnonzero((plain != drawn).any(axis=(0, 2)))
        assert columns.tolist() == list(range(width // 2, width // 2 + thickness))


def test_painting_in_strips_equals_painting_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(700, 700)
    label_map = (
        np.random.default_rng(1).integers(-1, 2, (70, 70)).repeat(10, 0).repeat(10, 1).astype(np.int32)
    )
    whole = overlay(image, label_map, TWO, legend=False)
    monkeypatch.setattr(render, "_STRIP", 700 * 3)
    np.testing.assert_array_equal(overlay(image, label_map, TWO, legend=False), whole)


def test_wrong_size_and_alpha() -> None:
    with pytest.raises(ValueError, match=r"40 x 60 .* 60 x 40"):
        overlay(noise(40, 60), halves(60, 40), TWO)
    with pytest.raises(ValueError, match="between 0 and 1"):
        overlay(noise(40, 60), halves(40, 60), TWO, alpha=60)


@pytest.mark.parametrize("k", [2, 40])
@pytest.mark.parametrize(("height", "width"), [(360, 480), (640, 360), (1080, 1920)])
def test_legend_shows_each_class_once_and_leaves_the_picture_alone(k: int, height: int, width: int) -> None:
    vocabulary = numbered(k)
    label_map = (np.arange(height * width).reshape(height, width) * k // (height * width)).astype(np.int32)
    bare = overlay(noise(height, width), label_map, vocabulary, legend=False)
    full = overlay(noise(height, width), label_map, vocabulary)
    np.testing.assert_array_equal(full[:height, :width], bare)
    if height > width:
        assert full.shape[0] == height and full.shape[1] > width
        panel = full[:, width:]
    else:
        assert full.shape[1] == width and full.shape[0] > height
        panel = full[height:]
    assert panel.size < 2 * bare.size
    for colour in vocabulary.palette:
        assert has_colour(panel, tuple(colour))
    edge = np.concatenate([panel[-3:].reshape(-1, 3), panel[:, -3:].reshape(-1, 3), panel[:3].reshape(-1, 3)])
    assert (edge == PAPER).all()  # nothing touches the border


def test_legend_leaves_out_absent_classes_and_orders_by_area() -> None:
    vocabulary = numbered(3)
    label_map = np.zeros((300, 300), np.int32)
    label_map[:, 100:] = 2
    panel = overlay(noise(300, 300), label_map, vocabulary)[300:]
    assert not has_colour(panel, vocabulary.classes[1].colour)
    first_seen = [
        int(np.flatnonzero((panel == np.array(vocabulary.classes[i].colour)).all(axis=-1).T)[0])
        for i in (2, 0)
    ]
    assert first_seen == sorted(first_seen)


@pytest.mark.parametrize("shape", [(1, 1), (32, 32), (3, 5000), (5000, 3), (255, 100)])
def test_pictures_of_any_shape_get_a_readable_legend(shape: tuple[int, int]) -> None:
    full = overlay(noise(*shape), np.zeros(shape, np.int32), TWO)
    assert max(full.shape[:2]) >= 256
    assert has_colour(full, TWO.classes[0].colour)
    assert overlay(noise(*shape), np.zeros(shape, np.int32), TWO, legend=False).shape[:2] == shape


def test_tiny_pictures_are_enlarged_by_whole_pixels() -> None:
    full = overlay(noise(32, 32), halves(32, 32), TWO, contours=False)
    bare = overlay(noise(32, 32), halves(32, 32), TWO, contours=False, legend=False)
    np.testing.assert_array_equal(full[:256:8, :256:8], bare)
    np.testing.assert_array_equal(full[7:256:8, 7:256:8], bare)


def test_hundreds_of_classes_are_summed_up() -> None:
    colour = (10, 200, 30)
    few = add_legend(noise(360, 480), [LegendEntry("a", "", colour, 0.01)] * 60)
    many = add_legend(noise(360, 480), [LegendEntry("a", "", colour, 0.001)] * 900)
    assert many.shape[0] <= few.shape[0] + 60
    rest = LegendEntry("unlabelled", "", None, 0.1)
    assert (
        add_legend(noise(360, 480), [LegendEntry("a", "", colour, 0.001)] * 900 + [rest]).shape == many.shape
    )


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(1, "100 %"), (0.372, "37 %"), (0.0996, "10 %"), (0.0994, "9.9 %"), (0.0001, "<0.1 %")],
)
def test_percent(fraction: float, text: str) -> None:
    assert LegendEntry("a", "", None, fraction).amount == text


def test_long_names_end_in_an_ellipsis_within_their_width() -> None:
    font = FontChain(20).plain
    cut = shorten("a very long name of a class", font, 100)
    assert cut.endswith("…") and cut.startswith("a very") and font.getlength(cut) <= 100
    assert shorten("short", font, 100) == "short"
    assert shorten("anything", font, 1) == "…"


def test_names_in_many_scripts() -> None:
    chain = FontChain(20)
    assert chain.choose("road", "class 0") == ("road", chain.plain)
    assert chain.choose("cafe\u0301", "class 0")[0] == "café"
    assert chain.choose("a\u200bb\nc", "class 0")[0] == "abc"
    for name in ("Straße", "дорога", "ağaç", "ελιά"):  # DejaVu Sans
        text, font = chain.choose(name, "class 0")
        assert text == name and font.getname()[0].startswith("DejaVu")


def test_names_that_no_font_can_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_SYSTEM_FONTS", ())
    chain = FontChain(20)
    assert chain.choose("道路", "class 7") == ("class 7", chain.plain)
    assert chain.choose("road 路", "class 7")[0] == "road ?"
    assert chain.choose("ที่", "class 7")[0] == "class 7"
    monkeypatch.setattr(fonts, "_dejavu", lambda: "no such font.ttf")
    assert FontChain(21).choose("дорога", "class 1")[0] == "class 1"


def test_a_font_of_the_system_is_taken_where_it_has_the_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    dejavu = fonts._dejavu()
    monkeypatch.setattr(fonts, "_dejavu", lambda: "no such font.ttf")
    monkeypatch.setattr(fonts, "_SYSTEM_FONTS", ("neither.ttf", dejavu))
    assert FontChain(22).choose("дорога", "class 1")[0] == "дорога"


def test_overlay_of_undrawable_names_does_not_fail() -> None:
    vocabulary = Vocabulary.of(["道路", "😀", "شجرة", "हिन्दी"])
    picture = overlay(
        noise(200, 300), np.arange(4, dtype=np.int32).repeat(50 * 300).reshape(200, 300), vocabulary
    )
    assert Image.fromarray(picture).size[0] == 300
