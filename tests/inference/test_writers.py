from __future__ import annotations

import errno
import functools
import json
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from ovseg._files import WriteError
from ovseg.inference.results import SegResult
from ovseg.inference.writers import Writer, is_output_name, list_writers, output_path, writer, writer_for
from ovseg.inference.writers._parts import paint, polygons
from ovseg.inference.writers.label_studio import decode_brush, encode_brush
from ovseg.vocab.vocabulary import Vocabulary, VocabularyClass

READABLE = [name for name in list_writers() if writer(name).read is not None]
MOST = {"voc": 254}  # classes that a format holds


@functools.cache
def vocabulary(k: int) -> Vocabulary:
    classes = [
        VocabularyClass(f"класс {i}: a | b", (f"word {i}", "два"), colour=(i % 256, i // 256, 7))
        for i in range(k)
    ]
    return Vocabulary(tuple(classes), name="many.txt")


def make(label_map: np.ndarray, k: int, **fields: object) -> SegResult:
    scores = np.linspace(0, 1, label_map.size).reshape(label_map.shape).astype(np.float16)
    image = np.zeros((*label_map.shape, 3), np.uint8)
    return SegResult(label_map.astype(np.int32), scores, vocabulary(k), "plain", "a/b.jpg", image, **fields)


def round_trip(format: str, result: SegResult, folder: Path) -> SegResult:
    chosen = writer(format)
    paths = chosen.write(result, output_path(folder, "a/b.jpg", format))
    assert all(path.is_file() for path in paths)
    assert chosen.read is not None
    return chosen.read(paths[0])


@st.composite
def label_maps(draw: st.DrawFn) -> tuple[int, np.ndarray]:
    k = draw(st.sampled_from([1, 2, 255, 256, 1000]))
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24))
    lowest = draw(st.sampled_from([-1, 0]))
    fill = draw(st.sampled_from([st.nothing(), st.just(k - 1)]))
    return k, draw(hnp.arrays(np.int32, shape, elements=st.integers(lowest, k - 1), fill=fill))


@pytest.mark.parametrize("format", READABLE)
@settings(max_examples=40, deadline=None)
@given(case=label_maps())
@example(case=(255, np.array([[254, -1]])))
@example(case=(256, np.array([[255, -1, 0]])))
@example(case=(1000, np.full((1, 1), -1)))
@example(case=(1, np.zeros((3, 2))))
def test_labels_and_vocabulary_come_back_exactly(format: str, case: tuple[int, np.ndarray]) -> None:
    k, label_map = case
    assume(k <= MOST.get(format, k))
    with tempfile.TemporaryDirectory() as folder:
        back = round_trip(format, make(label_map, k, seconds=0.25), Path(folder))
    np.testing.assert_array_equal(back.label_map, label_map)
    assert back.label_map.dtype == np.int32
    assert back.vocabulary == vocabulary(k)
    assert (back.protocol, back.source, back.seconds) == ("plain", "a/b.jpg", 0.25)
    assert back.scores.shape == label_map.shape and back.scores.dtype == np.float16


def test_which_formats_there_are() -> None:
    labels = "coco instances label_studio labelme npz overlay panoptic png voc yolo"
    assert list_writers() == tuple(labels.split())
    assert set(list_writers()) - set(READABLE) == {"overlay", "yolo"}
    extensions = [writer(name).extension for name in list_writers()]
    assert len(set(extensions)) == len(extensions)
    for name in list_writers():
        assert isinstance(writer(name), Writer) and writer(name).in_words
        assert (
            Path(writer(name).extension).suffix in writer(name).suffixes or writer(name).extension == ".npz"
        )
        assert writer_for("b.jpg" + writer(name).extension) == name
    with pytest.raises(ValueError, match="no format 'gif'; there are coco, instances"):
        writer("gif")


def test_a_new_file_in_the_package_is_a_new_format(tmp_path: Path) -> None:
    from ovseg.inference import writers

    code = "from ovseg.inference.writers import Writer\nWRITER = Writer('.x', ('.x',), print, None, 'the new one')\n"
    (tmp_path / "lines.py").write_text(code)
    list_writers.cache_clear()
    try:
        with mock.patch.object(writers, "__path__", [*writers.__path__, str(tmp_path)]):
            assert "lines" in list_writers()
            assert writer("lines").in_words == "the new one"
    finally:
        list_writers.cache_clear()


def test_npz_keeps_all_scores(tmp_path: Path) -> None:
    class_scores = np.random.default_rng(0).random((2, 3, 4)).astype(np.float16)
    result = make(np.zeros((3, 4)), 2, class_scores=class_scores)
    back = round_trip("npz", result, tmp_path)
    np.testing.assert_array_equal(back.scores, result.scores)
    np.testing.assert_array_equal(back.class_scores, class_scores)
    with np.load(tmp_path / "a" / "b.jpg.npz") as arrays:
        assert arrays["names"].tolist() == list(vocabulary(2).names)
    assert np.isnan(round_trip("png", result, tmp_path).scores).all()


def test_png_has_8_bits_and_a_palette_up_to_255_classes(tmp_path: Path) -> None:
    label_map = np.array([[0, 254, -1]])
    path, beside = writer("png").write(make(label_map, 255), tmp_path / "x.labels.png")
    with Image.open(path) as picture:
        assert picture.mode == "P"
        assert np.asarray(picture).tolist() == [[0, 254, 255]]
        colours = np.asarray(picture.convert("RGB"))[0]
    assert colours.tolist() == [[0, 0, 7], [254, 0, 7], [0, 0, 0]]
    description = json.loads(beside.read_text("utf-8"))
    assert beside == tmp_path / "x.labels.json" and description["unlabelled"] == 255
    assert description["vocabulary"]["classes"][1]["name"] == "класс 1: a | b"


def test_png_has_16_bits_above(tmp_path: Path) -> None:
    path, beside = writer("png").write(make(np.array([[0, 255, -1]]), 256), tmp_path / "x.png")
    with Image.open(path) as picture:
        assert picture.mode == "I;16"
        assert np.asarray(picture).tolist() == [[0, 255, 65535]]
    assert json.loads(beside.read_text("utf-8"))["unlabelled"] == 65535
    beside.unlink()
    assert writer("png").read(path).label_map.tolist() == [[0, 255, -1]]  # its metadata is enough


def test_png_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    result = make(np.zeros((1, 1)), 1)
    result.vocabulary = mock.MagicMock(__len__=lambda self: 65536)
    with pytest.raises(ValueError, match="at most 65535 classes, got 65536; use format 'npz'"):
        writer("png").write(result, tmp_path / "x.png")


def test_panoptic_segments_describe_the_ids_of_the_picture(tmp_path: Path) -> None:
    label_map = np.array([[-1, 0, 0], [999, 999, 0]])
    path, beside = writer("panoptic").write(make(label_map, 1000), tmp_path / "x.panoptic.png")
    rgb = np.asarray(Image.open(path)).astype(int)
    np.testing.assert_array_equal(
        rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2], [[0, 1, 1], [1000, 1000, 1]]
    )
    document = json.loads(beside.read_text("utf-8"))
    (annotation,) = document["annotations"]
    assert annotation["file_name"] == "x.panoptic.png"
    assert annotation["segments_info"] == [
        {"id": 1, "category_id": 1, "area": 3, "bbox": [1, 0, 2, 2], "iscrowd": 0},
        {"id": 1000, "category_id": 1000, "area": 2, "bbox": [0, 1, 2, 1], "iscrowd": 0},
    ]


def test_coco_file_is_read_by_pycocotools(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    label_map = np.array([[-1, 0, 0], [2, 2, 0]])
    (path,) = writer("coco").write(make(label_map, 3), tmp_path / "x.coco.json")
    coco = COCO(path)
    masks = {a["category_id"]: coco.annToMask(a) for a in coco.loadAnns(coco.getAnnIds(imgIds=1))}
    np.testing.assert_array_equal(masks[1], label_map == 0)
    np.testing.assert_array_equal(masks[3], label_map == 2)


def test_overlay_as_png_and_jpeg(tmp_path: Path) -> None:
    result = make(np.zeros((300, 400)), 1)
    for name, format in {"x.png": "PNG", "x.jpg": "JPEG", "x.jpeg": "JPEG"}.items():
        (path,) = writer("overlay").write(result, tmp_path / name)
        with Image.open(path) as picture:
            assert picture.format == format
            np.testing.assert_allclose(np.asarray(picture).astype(int), result.overlay(), atol=40)


def test_overlay_too_long_for_jpeg(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"save the overlay as \.png"):
        writer("overlay").write(make(np.zeros((1, 65501)), 1), tmp_path / "x.jpg")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", READABLE)
def test_files_of_other_programs_are_refused(format: str, tmp_path: Path) -> None:
    foreign = tmp_path / f"x{writer(format).extension}"
    if format == "npz":
        np.savez(foreign, a=np.zeros(3))
    elif foreign.suffix == ".json":
        foreign.write_text("{}")
    else:
        Image.new("L", (4, 4)).save(foreign)
        foreign.with_suffix(".json").write_text("{}")
    with pytest.raises(ValueError, match="was not written by ovseg"):
        writer(format).read(foreign)


def test_a_source_whose_name_is_no_utf8(tmp_path: Path) -> None:
    result = make(np.zeros((2, 2)), 1)
    result.source = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    for format in READABLE:
        assert round_trip(format, result, tmp_path).source == result.source, format


# Formats of annotation tools

RINGS = np.array(
    [
        [0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 1, 1, 0],
        [0, 1, 0, 0, 0, 1, 0],
        [0, 1, 0, 2, 0, 1, 0],
        [0, 1, 0, 0, 0, 1, 0],
        [0, 1, 1, 1, 1, 1, 2],
    ]
)


@settings(max_examples=60, deadline=None)
@given(
    label_map=hnp.arrays(
        np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=16), elements=st.integers(-1, 2)
    )
)
@example(label_map=RINGS)
def test_polygons_filled_in_order_give_the_labels(label_map: np.ndarray) -> None:
    outlines = polygons(label_map)
    np.testing.assert_array_equal(paint(outlines, label_map.shape), label_map)
    assert all(len(points) >= 3 for _, points in outlines)


def test_labelme_holds_what_its_format_asks_for(tmp_path: Path) -> None:
    (path,) = writer("labelme").write(make(RINGS, 3), tmp_path / "x.labelme.json")
    document = json.loads(path.read_text("utf-8"))
    assert (document["imagePath"], document["imageHeight"], document["imageWidth"]) == ("b.jpg", 6, 7)
    assert [shape["label"][-9:-7] for shape in document["shapes"]] == [" 1", " 0", " 0", " 2", " 2"]
    assert all(shape["shape_type"] == "polygon" for shape in document["shapes"])
    enclosed = np.where(RINGS == 2, -1, RINGS)
    (path,) = writer("labelme").write(make(enclosed, 3), path)
    assert [shape["label"] for shape in json.loads(path.read_text("utf-8"))["shapes"]][3:] == ["_background_"]


def test_yolo_outlines_as_ultralytics_paints_them(tmp_path: Path) -> None:
    import cv2

    path, names = writer("yolo").write(make(RINGS, 3), tmp_path / "x.yolo.txt")
    height, width = RINGS.shape
    painted = []
    for line in path.read_text().splitlines():
        label, *values = line.split()
        mask = np.zeros(RINGS.shape, np.uint8)
        points = (np.array(values, float).reshape(-1, 2) * (width, height)).astype(np.int32)
        painted.append((int(label), cv2.fillPoly(mask, [points], 1) > 0))
    back = np.full(RINGS.shape, -1)
    for label, mask in sorted(painted, key=lambda item: -item[1].sum()):
        back[mask] = label
    np.testing.assert_array_equal(back, RINGS)
    assert names.name == "classes.txt" and len(names.read_text("utf-8").splitlines()) == 3


def test_instances_are_connected_parts(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    (path,) = writer("instances").write(make(RINGS, 3), tmp_path / "x.instances.json")
    coco = COCO(path)
    found = [(a["category_id"], a["area"], tuple(a["bbox"]), coco.annToMask(a)) for a in coco.anns.values()]
    assert [item[:3] for item in found] == [
        (1, 16, (0, 0, 7, 6)), (1, 8, (2, 2, 3, 3)), (2, 16, (1, 1, 5, 5)), (3, 1, (3, 3, 1, 1)), (3, 1, (6, 5, 1, 1)),
    ]  # fmt: skip
    for category, area, (x, y, w, h), mask in found:
        assert mask.sum() == area and (RINGS[mask > 0] == category - 1).all()
        assert mask[y : y + h, x : x + w].sum() == area


def test_label_studio_reads_the_brush() -> None:
    """Against the layout of rle-pack, bit by bit."""
    code = encode_brush(np.array([[True, False, False]]))
    bits = "".join(f"{byte:08b}" for byte in code)
    header = f"{12:032b}" + "00111" + "0010" + "0011" + "0111" + "1111"
    runs = "1" + "00" + "011" + "1" * 8 + "1" + "00" + "111" + "0" * 8
    assert bits == (header + runs).ljust(len(bits), "0") and len(bits) - len(header + runs) < 8


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (200, 400)])
def test_brush_comes_back(size: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random(size) > 0.5
    mask[: size[0] // 2] = True  # a run that is longer than 65536 values
    np.testing.assert_array_equal(decode_brush(encode_brush(mask), size), mask)


def test_voc_counts_from_one_with_its_colours(tmp_path: Path) -> None:
    path, names = writer("voc").write(make(np.array([[-1, 0, 1, 14]]), 15), tmp_path / "x.voc.png")
    with Image.open(path) as picture:
        assert picture.mode == "P" and np.asarray(picture).tolist() == [[0, 1, 2, 15]]
        colours = np.asarray(picture.convert("RGB"))[0].tolist()
    assert colours == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128]]  # 15 is VOC's person
    assert names.read_text("utf-8").splitlines()[1] == "background:0,0,0::"
    with pytest.raises(ValueError, match="at most 254 classes, got 255; use 'png'"):
        writer("voc").write(make(np.zeros((1, 1)), 255), path)


# Names


def test_output_names_keep_folders_and_suffixes() -> None:
    assert output_path("OUT", "a/b.jpg", "overlay") == Path("OUT/a/b.jpg.overlay.png")
    names = {output_path("OUT", f"a/b{suffix}", f) for suffix in (".jpg", ".png", "") for f in list_writers()}
    assert len(names) == 3 * len(list_writers())


@pytest.mark.parametrize("relative", ["../b.jpg", "/etc/b.jpg", "a/../../b.jpg", ""])
def test_outputs_stay_below_their_folder(relative: str) -> None:
    with pytest.raises(ValueError, match="not a path below"):
        output_path("OUT", relative, "png")


def test_outputs_are_known_by_their_names() -> None:
    for format in list_writers():
        assert is_output_name(output_path("OUT", "b.jpg", format).name)
    assert is_output_name("B.JPG.OVERLAY.PNG")
    for name in ("b.jpg", "b.png", "overlay.png", "b.jpg.png", ".overlay.png"):
        assert not is_output_name(name)


# Failures


@pytest.mark.parametrize("format", list_writers())
def test_a_full_disk_leaves_the_old_file_and_no_other(format: str, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    k = MOST.get(format, 1000)
    noise = np.random.default_rng(0).integers(-1, k, (200, 200))
    path = tmp_path / f"x{writer(format).extension}"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(WriteError, match=r"cannot write .*x\..*; write somewhere else") as info:
            writer(format).write(make(noise, k), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert info.value.errno == errno.EFBIG
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("format", list_writers())
def test_a_file_in_the_place_of_the_folder(format: str, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(WriteError, match="not a folder"):
        writer(format).write(make(np.zeros((2, 2)), 1), output_path(tmp_path / "out", "a.jpg", format))


@pytest.mark.parametrize("format", list_writers())
def test_ten_thousand_parts_take_no_longer_than_their_outlines(format: str, tmp_path: Path) -> None:
    """Fifty times the parts, on as many pixels: whatever does something to all pixels for each would show."""

    def seconds(cells: int) -> float:
        checks = np.add.outer(np.arange(cells), np.arange(cells)) % 2
        label_map = np.kron(checks, np.ones((700 // cells, 700 // cells), int))
        result = make(label_map, 2)
        start = time.process_time()
        path, *_ = writer(format).write_any(result, tmp_path / f"x{writer(format).extension}")
        if format in READABLE:
            np.testing.assert_array_equal(writer(format).read(path).label_map, label_map)
        return time.process_time() - start

    seconds(10)
    assert seconds(100) < 3 + 2 * seconds(14)
