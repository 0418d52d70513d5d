from __future__ import annotations

import pytest

from ovseg.vocab.templates import fill, list_templates, templates


def test_imagenet80_is_open_clips_list():
    open_clip = pytest.importorskip("open_clip")
    expected = tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)
    assert templates("imagenet80") == expected
    assert templates("maskclip85") == expected + templates("maskclip_scene5")


@pytest.mark.parametrize("name", list_templates())
def test_every_set_can_be_filled(name):
    prompts = {fill(template, "olive tree") for template in templates(name)}
    assert len(prompts) == len(templates(name))
    assert all("olive tree" in prompt and "{" not in prompt for prompt in prompts)


def test_vild_rules():
    rows = templates("vild63")
    assert sum(row.startswith("This is ") for row in rows) == 58
    assert fill(rows[2], "apple") == "This is a photo of an apple in the scene."
    assert fill(rows[2], "Apple") == "This is a photo of a Apple in the scene.", "lower-case vowels only"


def test_braces_in_a_word_are_only_text():
    assert fill("a {}.", "{0} {}") == "a {0} {}."


def test_a_template_without_a_slot_is_named():
    with pytest.raises(ValueError, match="'a photo' has no slot"):
        fill("a photo", "cat")


def test_an_unknown_set_lists_near_names():
    with pytest.raises(ValueError, match="imagenet80"):
        templates("imagenet")
