"""Words of the detection data sets: the normalisation that their published numbers depend on."""

from __future__ import annotations

import torch

from ovseg.vocab.shipped import read_list
from ovseg.vocab.templates import fill, templates
from ovseg.vocab.text_bank import encode_vocabulary
from ovseg.vocab.vocabulary import Vocabulary


def words(name):
    return {entry["name"]: entry["words"] for entry in read_list(name)["classes"]}


def test_vild_s_rule_for_lvis_names():
    vild = words("lvis_v1.vild")
    assert len(vild) == 1203
    for name, own in vild.items():
        assert own == [name.lower().replace("_", " ").replace("/", " or ").rstrip(".")]
    slashed = [own for name, own in vild.items() if "/" in name]
    assert all(" or " in own[0] for own in slashed)


def test_regionclip_s_rule_for_lvis_names():
    for name, own in words("lvis_v1.regionclip").items():
        assert own == [name.replace("_", " ").replace("(", "").replace(")", "")]


def test_vild_has_63_prompts_and_regionclip_81():
    vild, regionclip = templates("vild63"), templates("regionclip81")
    assert (len(vild), len(regionclip)) == (63, 81)
    assert "This is a photo of an apple." in {fill(row, "apple") for row in vild}
    assert regionclip[0] == "{}." and set(regionclip[1:]) == set(templates("imagenet80"))


def test_rows_are_unit_and_follow_their_words(tiny_clip):
    names = ["apple", "hot dog", "tv monitor or screen", "car"]
    encode = [
        encode_vocabulary(
            tiny_clip.model, tiny_clip.tokenizer, Vocabulary.of(order), "vild14"
        ).matrix.detach()
        for order in (names, names[::-1])
    ]
    torch.testing.assert_close(encode[0].norm(dim=1), torch.ones(4))
    torch.testing.assert_close(encode[0], encode[1].flip(0), atol=1e-6, rtol=1e-5)
