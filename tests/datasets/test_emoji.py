"""EmojiScenes: the word table, the warp, the scenes and the batches."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from emoji_fakes import SIDE, fake_arrays, fake_drawings, write_fake_drawings

from ovseg.datasets.emoji import (
    ARTISTS,
    PROMPTS,
    TEXTURES,
    Drawings,
    EmojiBatches,
    EmojiScenes,
    Pose,
    Stage,
    caption,
    draw_texture,
    paste,
    word_table,
)
from ovseg.datasets.emoji.randomness import random_state


@pytest.fixture(scope="module")
def drawings() -> Drawings:
    return fake_drawings()


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def test_words_are_enough_and_no_name_serves_two():
    table = word_table()
    assert len(table.select("base", "novel")) >= 120
    assert len(table.select("unknown")) >= 20
    names = [name for word in table.words for name in word.names]
    assert len(names) == len(set(names))
    assert not set(names) & set(table.textures)
    assert tuple(TEXTURES) == table.textures


def test_groups_share_no_word():
    table = word_table()
    groups = [set(table.select(group)) for group in ("base", "novel", "unknown")]
    assert sum(map(len, groups)) == len(table.words) == len(set.union(*groups))


def test_licences_allow_shipping_and_splits_share_no_artist():
    assert {artist.licence for artist in ARTISTS} <= {"Apache-2.0", "MIT", "CC-BY-4.0"}
    owners: dict[str, set[str]] = {}
    for artist in ARTISTS:
        owners.setdefault(artist.attribution, set()).add(artist.split)
    assert all(len(splits) == 1 for splits in owners.values())


def test_the_data_card_in_the_docs_is_current():
    page = (Path(__file__).parents[2] / "docs" / "emoji.md").read_text(encoding="utf-8")
    for a in ARTISTS:
        assert f"| {a.name} | {a.package} {a.version} | {a.licence} | {a.split} |" in page
        assert a.attribution in page
    for group in ("base", "novel", "unknown"):
        assert f"{len(word_table().select(group))} *{group}*" in page


def test_importing_the_data_set_does_not_import_torch():
    code = "import sys, ovseg.datasets.emoji; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_upright_drawing_of_its_own_size_is_pasted_as_it_is(drawings):
    drawing = drawings.levels[0][5]
    image, instances = np.full((64, 64, 3), 200, np.uint8), np.zeros((64, 64), np.uint8)
    paste(image, instances, drawing, Pose(30, 28, SIDE, SIDE), 3)
    window = (slice(28 - SIDE // 2, 28 + SIDE // 2), slice(30 - SIDE // 2, 30 + SIDE // 2))
    opaque = drawing[..., 3] == 255
    assert (image[window][opaque] == drawing[..., :3][opaque]).all()
    assert ((instances[window] == 3) == (drawing[..., 3] > 127)).all()
    outside = np.ones((64, 64), bool)
    outside[window] = False
    assert (image[outside] == 200).all() and not instances[outside].any()


def test_a_mirrored_and_a_half_turned_drawing(drawings):
    drawing = drawings.levels[0][11]
    shapes = []
    for pose in (Pose(32, 32, SIDE, SIDE), Pose(32, 32, -SIDE, SIDE), Pose(32, 32, SIDE, SIDE, 180)):
        instances = np.zeros((64, 64), np.uint8)
        paste(np.zeros((64, 64, 3), np.uint8), instances, drawing, pose, 1)
        shapes.append(instances)
    assert (shapes[1] == shapes[0][:, ::-1]).all()
    assert (shapes[2] == shapes[0][::-1, ::-1]).all()
    assert not (shapes[1] == shapes[0]).all()


def test_a_drawing_that_hangs_over_the_edge_is_cut(drawings):
    image, instances = np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8)
    paste(image, instances, drawings.levels[0][3], Pose(0, 40, 30, 30, 20, 0.1), 1, shadow=2)
    assert instances.any()
    paste(image, instances, drawings.levels[0][3], Pose(-90, -90, 30, 30), 2)
    assert 2 not in instances


def test_textures_have_the_same_pixels_everywhere():
    pictures = [draw_texture(name, random_state(5, i), 48) for i, name in enumerate(TEXTURES)]
    assert [digest(picture) for picture in pictures] == TEXTURE_DIGESTS


def test_scenes_have_the_same_pixels_everywhere(drawings):
    scenes = EmojiScenes("train", size=128, length=4, drawings=drawings)
    assert [digest(scene.image) for scene in scenes] == SCENE_DIGESTS


def test_a_scene_depends_on_its_index_alone(drawings):
    one = EmojiScenes("val", ("base", "novel"), size=128, length=6, drawings=drawings)
    other = pickle.loads(
        pickle.dumps(EmojiScenes("val", ("base", "novel"), size=128, length=9, drawings=drawings))
    )
    for i in (5, 0, 3):
        assert (one[i].image == other[i].image).all() and one[i].words == other[i].words
    assert not (one[0].image == one[1].image).all()
    with pytest.raises(IndexError):
        one[6]


def test_scenes_show_only_their_groups_and_what_the_masks_say(drawings):
    scenes = EmojiScenes("test", ("novel",), size=224, length=12, drawings=drawings)
    novel = set(word_table().select("novel"))
    for scene in scenes:
        assert set(scene.words) <= novel and len(set(scene.words)) == len(scene.words) >= 2
        assert set(np.unique(scene.instances)) <= set(range(len(scene.words) + 1))
        assert 0.03 < (scene.instances > 0).mean() < 0.8


def test_a_split_draws_only_its_own_artists(drawings):
    for split in ("train", "val", "test"):
        chosen = drawings.select(split, range(5))
        owners = {artist.name for artist in ARTISTS if artist.split == split}
        assert {drawings.artists[i] for ids in chosen.values() for i in ids} <= owners


def test_a_batch_depends_on_its_step_alone(drawings):
    stages = [Stage(2, ((64, 6, 1.0),)), (5, [(64, 4, 0.5), (96, 3, 0.5)])]
    batches = EmojiBatches(stages, drawings=drawings)
    direct = batches[3]
    for step in (0, 1, 4):
        batches[step]
    again = batches[3]
    for key in ("image", "instances", "labels", "single"):
        assert (direct[key] == again[key]).all()
    assert direct["captions"] == again["captions"] and direct["names"] == again["names"]
    assert len(batches) == 5 and batches[0]["image"].shape == (6, 64, 64, 3)
    assert {batches[i]["image"].shape[:2] for i in range(2, 40)} == {(4, 64), (3, 96)}


def test_labels_and_captions_name_what_is_drawn(drawings):
    batch = EmojiBatches([Stage(9, ((64, 12, 1.0),))], drawings=drawings)[0]
    table = word_table()
    known = table.select("base", "novel")
    assert len(batch["names"]) == len(known) + len(table.textures)
    for labels, text, alone in zip(batch["labels"], batch["captions"], batch["single"]):
        assert labels[0] >= len(known)
        shown = labels[1:][labels[1:] >= 0]
        assert len(shown) == (1 if alone else len(shown))
        for row in shown:
            assert any(name in text for name in table.words[known[row]].names)
    unknown = set(table.names("unknown"))
    assert not unknown & set(batch["names"])


def test_captions_name_the_texture_half_of_the_time(drawings):
    table = word_table()
    scene = EmojiScenes("train", size=128, length=1, drawings=drawings)[0]
    texts = [caption(table, scene, random_state(1, i)) for i in range(60)]
    named = sum(table.textures[scene.texture] in text for text in texts)
    assert 15 < named < 45


def test_every_prompt_takes_a_word():
    assert all(prompt.format("cat") != prompt and "cat" in prompt.format("cat") for prompt in PROMPTS)


def test_missing_and_outdated_drawings_say_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tools/prepare/emoji\.py"):
        Drawings.load(tmp_path / "none.npz")
    path = write_fake_drawings(tmp_path)
    arrays = fake_arrays()
    arrays["word_names"] = np.array(["cat", *("other" for _ in arrays["word_names"][1:])])
    np.savez_compressed(path, **arrays)
    with pytest.raises(ValueError, match=r"lacks drawings of dog"):
        Drawings.load(path)


def test_drawings_are_loaded_by_name_of_the_word(tmp_path):
    path = write_fake_drawings(tmp_path)
    arrays = fake_arrays()
    reverse = np.arange(len(arrays["word_names"]))[::-1]
    np.savez_compressed(path, **{**arrays, "word_names": arrays["word_names"][reverse]})
    loaded = Drawings.load(path)
    assert (loaded.words == reverse[arrays["words"]]).all()


TEXTURE_DIGESTS = [
    "9b2fdc8c07c4b0df",
    "527cb47ff83e4496",
    "8b005218ec6790bb",
    "42fc98636b9a0bad",
    "d358d1b001d14ab6",
    "10213904b89f5160",
    "9f459d415e66bc28",
    "287d19998abff0c7",
    "a9b4bbd31c566da9",
    "bc9f7aabdc7ddcff",
    "b56e3431bbabbb94",
    "9942bcabc8d3f965",
    "1403ce2934d493f3",
]
SCENE_DIGESTS = ["449c593157be73cb", "0cd7b3073084559b", "99af0c5b49922d00", "32dd586729fd4363"]
