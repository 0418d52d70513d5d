from __future__ import annotations

import json
import unicodedata
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovseg.vocab.shipped import list_vocabularies, read_list
from ovseg.vocab.vocabulary import Vocabulary, VocabularyClass

_TEXT = st.text(
    st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp"), blacklist_characters=":|!#"), min_size=1
).filter(lambda text: text.strip())
_NAMES = st.lists(_TEXT, min_size=1, max_size=6, unique_by=lambda name: _plain(name).casefold())


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


@given(_NAMES)
def test_a_list_of_names_gives_these_classes_in_this_order(names):
    vocabulary = Vocabulary.of(names)
    assert vocabulary.names == vocabulary.words == tuple(_plain(name) for name in names)
    assert vocabulary.word_to_class == tuple(range(len(names)))


@given(_NAMES, st.data())
def test_round_trip_through_json(names, data):
    entries = [
        {
            "name": _plain(name),
            "words": data.draw(st.lists(_TEXT, min_size=1, max_size=3)),
            "background": data.draw(st.booleans()),
            "colour": data.draw(st.tuples(*[st.integers(0, 255)] * 3).map(list)),
        }
        for name in names
    ]
    vocabulary = Vocabulary.from_dict({"name": "mine", "classes": entries})
    assert vocabulary.to_dict()["classes"] == entries, "words and colours are kept as they are"
    again = Vocabulary.from_dict(json.loads(json.dumps(vocabulary.to_dict())))
    assert again == vocabulary
    assert hash(again) == hash(vocabulary)
    assert again.fingerprint == vocabulary.fingerprint


@given(_NAMES)
def test_a_text_file_reads_like_the_list(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("words") / "classes.txt"
    path.write_text("\n".join(names), encoding="utf-8")
    assert Vocabulary.of(path).classes == Vocabulary.of(names).classes


def test_words_names_and_background_marks():
    vocabulary = Vocabulary.of(["road", "person: man |woman| child ", "!stuff: sky | wall", " ! tree"])
    assert vocabulary.names == ("road", "person", "stuff", "tree")
    assert vocabulary.words == ("road", "man", "woman", "child", "sky", "wall", "tree")
    assert vocabulary.word_to_class == (0, 1, 1, 1, 2, 2, 3)
    assert [item.is_background for item in vocabulary.classes] == [False, False, True, True]
    assert len(vocabulary) == 4


def test_text_file_with_comments_byte_order_mark_and_windows_line_ends(tmp_path):
    path = tmp_path / "street.txt"
    path.write_bytes(
        "\ufeff# what a car sees\r\nroad  # drivable\r\n\r\nperson: man | woman\r\nC#\r\n".encode()
    )
    vocabulary = Vocabulary.of(str(path))
    assert vocabulary.words == ("road", "man", "woman", "C#")
    assert vocabulary.name == "street.txt"


@pytest.mark.parametrize("form", ["list", "object"])
def test_json_files(tmp_path, form):
    expected = Vocabulary.of(["road", "person: man | woman"])
    path = tmp_path / "v.json"
    path.write_text(json.dumps(["road", "person: man | woman"] if form == "list" else expected.to_dict()))
    assert Vocabulary.of(path).classes == expected.classes


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "empty: name at least one class"),
        ("", "unknown vocabulary"),
        (["road", "car", "road"], "given twice: 'road'"),
        (["road", "  "], "no class name"),
        ([": man"], "no class name"),
        (["!"], "no class name"),
        (["person:"], "empty word"),
        (["person: man | | child"], "empty word"),
        (["person: man | man"], "'man' twice"),
        (["man | woman"], "write 'name: man | woman'"),
        (["road\x00"], "U\\+0000"),
        (["tab\tbed"], "U\\+0009"),
        (["a\u2028b"], "U\\+2028"),
        (["\ud800"], "U\\+D800"),
        (["road", 3], "a class is a string"),
        ("ade15", "near: ade150"),
        ("ade150.nobody", "near: .*ade150.sclip"),
        ("road", r"pass a list: \['road'\]"),
    ],
)
def test_what_is_no_vocabulary_says_the_cure(source, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary.of(source)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"caf\xe9", "not UTF-8"),
        ("road".encode("utf-16"), "not UTF-8"),
        (b"# nothing\n\n", "empty"),
        (b"a\x0bb", "U\\+000B"),
    ],
)
def test_bad_text_files_are_named(tmp_path, content, message):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Vocabulary.of(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("3", "expected a list"),
        ("{}", "needs 'classes'"),
        ('{"classes": "road"}', "needs 'classes'"),
        ('{"classes": [{"words": ["a"]}]}', "needs a 'name'"),
        ('{"classes": [{"name": "a", "words": "a"}]}', "list of strings"),
        ('{"classes": [{"name": "a", "words": []}]}', "no words"),
        ('{"classes": [{"name": "a", "words": [" "]}]}', "empty word"),
        ('{"classes": [{"name": "a", "background": 1}]}', "true or false"),
        ('{"classes": [{"name": "a", "colour": [0, 0, 256]}]}', "from 0 to 255"),
    ],
)
def test_bad_json_files_are_named(tmp_path, content, message):
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        Vocabulary.of(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt"):
        Vocabulary.of(tmp_path / "nowhere.txt")


def test_a_word_of_two_classes_warns_and_synonyms_do_not():
    with pytest.warns(UserWarning, match="'road' serves 2 classes"):
        Vocabulary.of(["Road", "way: road | path"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Vocabulary.of(["road", "way: path | lane"])


@pytest.mark.parametrize("name", list_vocabularies())
def test_every_shipped_list_loads_silently_with_its_words_verbatim(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vocabulary = Vocabulary.of(name)
    data = read_list(name)
    assert (len(vocabulary), len(vocabulary.words)) == (data["num_classes"], data["num_words"])
    assert [list(item.words) for item in vocabulary.classes] == [c["words"] for c in data["classes"]]
    assert [item.is_background for item in vocabulary.classes] == [c["background"] for c in data["classes"]]


def test_a_method_finds_the_list_it_shares_with_others():
    assert Vocabulary.of("voc21.naclip") == Vocabulary.of("voc21.sclip")
    assert Vocabulary.of("context60.sclip").words[-1] == "wood ", "the published trailing space"
    with pytest.raises(ValueError, match="unknown"):
        Vocabulary.of("voc2.naclip")


def test_two_classes_of_one_name_stay_apart_in_a_shipped_list():
    names = Vocabulary.of("ade847.cat_seg").names
    assert {"bag", "bag (2)"} <= set(names)


def test_ten_thousand_words():
    vocabulary = Vocabulary.of([f"class {i}: word {i} | other {i}" for i in range(5000)])
    assert len(vocabulary.words) == 10000
    assert vocabulary.palette.shape == (5000, 3)
    assert hash(vocabulary) == hash(Vocabulary.from_dict(vocabulary.to_dict()))


def test_colours_are_far_apart_and_follow_the_name():
    names = [f"class {i}" for i in range(40)]
    for n, least in ((2, 100), (12, 60), (40, 30)):
        palette = Vocabulary.of(names[:n]).palette.astype(float)
        distance = np.linalg.norm(palette[:, None] - palette[None], axis=-1) + 1e9 * np.eye(n)
        assert distance.min() > least
    assert Vocabulary.of(["road", "car"]).classes[0].colour == Vocabulary.of(["road"]).classes[0].colour
    kept = dict(zip(names[:12], Vocabulary.of(names[:12]).palette.tolist()))
    reverse = dict(zip(names[11::-1], Vocabulary.of(names[11::-1]).palette.tolist()))
    assert sum(kept[name] == reverse[name] for name in kept) >= 4


def test_background_classes_are_grey_and_may_go_without_words():
    item = Vocabulary.from_dict({"classes": [{"name": "rest", "words": [], "background": True}]}).classes[0]
    assert item.words == ()
    assert len(set(item.colour)) == 1


def test_classes_built_by_hand_are_checked():
    with pytest.raises(ValueError, match="no words"):
        VocabularyClass("road", ())
    with pytest.raises(ValueError, match="given twice"):
        Vocabulary((VocabularyClass("a", ("a",)), VocabularyClass("a", ("b",))))


def test_fingerprint_is_of_what_decides_the_labels():
    base = Vocabulary.of(["road", "car"])
    assert Vocabulary.of(["car", "road"]).fingerprint != base.fingerprint
    assert Vocabulary.of(["road", "car: car"]).fingerprint == base.fingerprint
    assert Vocabulary.of(["road", "!car"]).fingerprint != base.fingerprint
    assert Vocabulary(base.classes, "other name").fingerprint == base.fingerprint
