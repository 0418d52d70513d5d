from __future__ import annotations

import pytest

from ovseg.vocab.background import background_words, with_background
from ovseg.vocab.vocabulary import Vocabulary


def test_the_list_is_of_distinct_words_and_of_a_sane_size():
    words = background_words(Vocabulary.of(["xylophone"]))
    assert 60 <= len(words) <= 120
    assert len(set(words)) == len(words)
    assert {"wall", "floor", "sky", "person"} <= set(words)


@pytest.mark.parametrize(
    ("asked", "gone"),
    [
        ("road", "road"),
        ("ROADS", "road"),
        ("street", "road"),
        ("red car", "car"),
        ("traffic-light", "traffic light"),
        ("trafficlight", "traffic light"),
        ("buses", "bus"),
        ("benches", "chair"),
        ("human: men | women", "person"),
        ("berries", "fruit"),
    ],
)
def test_what_the_user_asks_for_does_not_compete(asked, gone):
    assert gone in background_words(Vocabulary.of(["xylophone"]))
    assert gone not in background_words(Vocabulary.of([asked]))


def test_most_of_the_list_stays():
    assert len(background_words(Vocabulary.of(["road", "car", "person", "日本", "-"]))) > 70


def test_words_of_the_callers_own():
    assert background_words(Vocabulary.of(["road"]), ["Roads", "white paper"]) == ("white paper",)


def test_one_background_class_comes_last():
    vocabulary = Vocabulary.of(["road", "car"])
    extended = with_background(vocabulary, ["wall", "sky"])
    assert extended.classes[:2] == vocabulary.classes
    assert extended.classes[2].is_background
    assert extended.classes[2].words == ("wall", "sky")
    assert with_background(vocabulary, []) == vocabulary


def test_a_background_class_of_the_users_own_keeps_its_name_and_colour():
    vocabulary = Vocabulary.of(["road", "!background: wall"])
    extended = with_background(vocabulary, ["sky"])
    assert extended.names == ("road", "background", "background (2)")
    assert extended.classes[2].colour != extended.classes[1].colour
