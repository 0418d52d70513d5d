"""Text banks as files: what a predictor computes with one is what it computes with the words."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import ovseg
from ovseg.cli.main import main
from ovseg.towers.text import TextTransformer
from ovseg.vocab.bank_file import load_bank
from ovseg.vocab.vocabulary import Vocabulary

CLASSES = ["cat", "person: man | woman | child", "!stuff: sky | wall"]


@pytest.fixture
def predictor(tiny_clip):
    return ovseg.build("maskclip", tiny_clip)


@pytest.fixture
def bank(predictor, tmp_path):
    return predictor.bank(CLASSES).save(tmp_path / "bank.safetensors")


@pytest.fixture
def no_text_tower(monkeypatch):
    """From now on a word that is encoded is an error."""

    def forbidden(*args, **options):
        raise AssertionError("the text tower was run")

    def forbid():
        monkeypatch.setattr("ovseg.vocab.text_bank.encode_prompts", forbidden)
        monkeypatch.setattr("ovseg.towers.tokenizer.Tokenizer.encode", forbidden)
        monkeypatch.setattr(TextTransformer, "forward", forbidden)
        monkeypatch.setenv("OVSEG_CACHE", "/nowhere")

    return forbid


@pytest.mark.parametrize("background", [None, "words", "floor=0.2", "margin=0.01"])
def test_labels_are_those_of_the_words_and_no_word_is_encoded(
    predictor, bank, photo, no_text_tower, background
):
    live = predictor.segment(photo, CLASSES, background=background)
    live_boxes = predictor.detect(photo, CLASSES, threshold=0)
    no_text_tower()
    again = ovseg.build("maskclip", predictor._clip)
    with pytest.raises(AssertionError, match="text tower"):
        again.segment(photo, ["dog"])
    for found in (again.segment(photo, bank, background=background), _set(again, bank, photo, background)):
        np.testing.assert_array_equal(found.label_map, live.label_map)
        assert found.vocabulary == live.vocabulary and found.vocabulary.names == ("cat", "person")
    np.testing.assert_allclose(again.detect(photo, str(bank), threshold=0).boxes, live_boxes.boxes)
    boxes = np.array([[0, 0, 50, 50]], np.float32)
    assert again.classify(photo, boxes, load_bank(bank)).shape == (1, 2)


def _set(predictor, bank, photo, background):
    predictor.set_vocabulary(bank)
    assert predictor.vocabulary == Vocabulary.of(CLASSES)
    return predictor.segment(photo, background=background)


@pytest.mark.parametrize(
    "changes",
    [
        {"average": "keep", "templates": ("{}", "a {}", "the {}.")},
        {"average": "mean", "templates": "vild14"},
        {"synonyms": "first"},
        {"background": None},
    ],
)
def test_rows_are_those_of_a_live_bank(tiny_clip, tmp_path, no_text_tower, changes):
    first = ovseg.build("maskclip", tiny_clip)
    protocol = replace(first.protocol, **changes)
    first = ovseg.build("maskclip", tiny_clip, protocol=protocol)
    live = first._plan(CLASSES, None)
    path = first.bank(CLASSES).save(tmp_path / "b.safetensors")
    no_text_tower()
    again = ovseg.build("maskclip", tiny_clip, protocol=replace(protocol, templates="imagenet80"))
    again.set_vocabulary(path)
    plan = again._plan(None, None)
    torch.testing.assert_close(plan.bank.rows, live.bank.rows, rtol=0, atol=0)
    assert plan.bank.normalised == live.bank.normalised and plan.bank.vocabulary == live.bank.vocabulary
    assert plan.bank.word_to_class.tolist() == live.bank.word_to_class.tolist()


def test_a_bank_of_another_tower_is_refused(tiny_clip, bank, photo):
    other = ovseg.build("maskclip", tiny_clip)
    with torch.no_grad():
        other._clip.model.text.text_projection.add_(1e-3)
    with pytest.raises(ValueError, match=r"another text tower.*ovseg vocab build"):
        other.segment(photo, bank)


def test_a_bank_of_another_average_is_refused(predictor, bank, tiny_clip, photo):
    other = ovseg.build("maskclip", tiny_clip, protocol=replace(predictor.protocol, average="keep"))
    with pytest.raises(ValueError, match=r"'norm_mean_norm'.*'keep'.*vocab build --model"):
        other.set_vocabulary(bank)


def test_templates_that_are_not_the_banks(predictor, bank):
    with pytest.raises(ValueError, match="vild14"):
        predictor.set_vocabulary(bank, templates="vild14")
    predictor.set_vocabulary(bank, templates="imagenet80")


def test_words_that_are_not_in_it(bank):
    with pytest.raises(ValueError, match="'unicorn'"):
        load_bank(bank).select(Vocabulary.of(["cat", "unicorn"]))


def test_what_the_file_holds(predictor, bank):
    saved = load_bank(bank)
    assert saved.bank.vocabulary.words == ("cat", "man", "woman", "child", "sky", "wall")
    assert saved.bank.word_to_class.tolist() == [0, 1, 1, 1, 2, 2]
    assert saved.templates == "imagenet80" and saved.tower == "vit_mini.random"
    assert "sky" not in saved.competitors and "grass" in saved.competitors
    torch.testing.assert_close(saved.bank.matrix, predictor._planner.bank(saved.vocabulary).matrix)
    assert Vocabulary.of(bank) == Vocabulary.of(str(bank)) == Vocabulary.of(saved) == saved.vocabulary
    with pytest.raises(ValueError, match=r"\.safetensors"):
        saved.save(bank.with_suffix(".pt"))


@pytest.mark.parametrize("damage", ["text", "half", "tail", "other", "nan", "rows", "words", "nowhere"])
def test_a_file_that_is_no_bank(predictor, bank, photo, damage):
    from safetensors import safe_open

    with safe_open(bank, "pt") as file:
        metadata, tensors = file.metadata(), load_file(bank)
    data = bank.read_bytes()
    if damage in ("text", "half", "tail"):
        bank.write_bytes({"text": b"text", "half": data[:200], "tail": data[:-9]}[damage])
    elif damage == "other":
        save_file({"a": torch.zeros(3)}, bank)
    elif damage == "nowhere":
        bank.unlink()
    else:
        if damage == "words":
            about = json.loads(metadata["bank"])
            about["vocabulary"]["classes"].pop()
            metadata["bank"] = json.dumps(about)
        else:
            tensors["rows"][0, 0, 0] = float("nan")
            tensors["rows"] = tensors["rows"] if damage == "nan" else tensors["rows"][:2].clone()
        save_file(tensors, bank, metadata)
    with pytest.raises((ValueError, FileNotFoundError), match=r"text bank.*(build|check)"):
        predictor.segment(photo, bank)


def test_the_command_line_builds_a_bank_and_takes_it(tmp_path, capsys, no_text_tower):
    from ovseg.cli.demo import _SCENES

    scene = _SCENES / json.loads((_SCENES / "scenes.json").read_text())[0]["file"]
    bank, out = tmp_path / "b.safetensors", tmp_path / "out"
    assert main(["vocab", "build", "cow", "plant: tree | flower", "--out", str(bank)]) == 0
    stdout, stderr = capsys.readouterr()
    assert stdout.split() == [str(bank)] and "3 words of 2 classes" in stderr
    words = ["--classes", "cow", "plant: tree | flower"]
    run = ["segment", str(scene), "--format", "npz"]
    assert main([*run, *words, "--out", str(tmp_path / "live")]) == 0
    no_text_tower()
    assert main([*run, "--vocab", str(bank), "--out", str(out)]) == 0
    found, live = (np.load(path / f"{scene.name}.npz")["label_map"] for path in (out, tmp_path / "live"))
    np.testing.assert_array_equal(found, live)
    assert main([*run, "--vocab", str(bank), "--out", str(out), "--resume"]) == 0
    assert "1 skipped" in capsys.readouterr().err
    assert main([*run, "--vocab", str(bank), "--templates", "vild14", "--out", str(out)]) == 2
    assert "the bank was made with templates" in capsys.readouterr().err
    assert main(["vocab", "show", str(bank)]) == 0
    assert capsys.readouterr().out.splitlines() == ["0\tcow", "1\tplant: tree | flower"]
