from __future__ import annotations

from ovseg.datasets.concepts import parse_concepts


def test_noun_phrases_stand_between_function_words():
    captions = [
        "a photo of a cat, a dog and a palm tree on grass",
        "A cat in front of blue sky.",
        "there is a man riding a horse near the beach",
    ]
    found = parse_concepts(captions)
    assert found[0] == "cat"
    assert set(found) == {"cat", "dog", "palm tree", "grass", "blue sky", "man", "horse", "beach"}
    assert parse_concepts(captions, least=2) == ("cat",)
