"""Release files: a whole model in, the same model out, and nothing executed on the way."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import ovseg
from ovseg.inference.protocol import Protocol, Resize
from ovseg.inference.steps import Floor, Softmax
from ovseg.towers.checkpoints import CheckpointError

PROTOCOL = Protocol(
    "mine", Resize(64), crop=48, stride=32, steps=(Softmax(30.0), Floor(0.2)), background="none"
)


@pytest.fixture
def saved(tiny_clip, tmp_path):
    predictor = ovseg.build(
        "maskclip", tiny_clip, protocol=PROTOCOL, key_smoothing=0.4, activation="quick_gelu"
    )
    predictor.set_vocabulary(["cat", "animal: dog | cow", "sky"], templates=["a {}.", "{}"])
    return predictor, predictor.save(tmp_path / "model.safetensors")


def rewrite(path, **changes):
    """Changes the header of a release, None removes an entry."""
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["ovseg"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header.update(changes)
    for name in [name for name, value in changes.items() if value is None]:
        del header[name]
    save_file(tensors, path, {"ovseg": json.dumps(header)})


def test_the_same_model_comes_back(saved, photo):
    predictor, path = saved
    again = ovseg.load(path)
    before, after = predictor.segment(photo, class_scores=True), again.segment(photo, class_scores=True)
    assert after.vocabulary == before.vocabulary
    assert np.array_equal(after.label_map, before.label_map)
    assert np.array_equal(after.class_scores, before.class_scores)
    assert again.protocol.steps == PROTOCOL.steps and again.name == predictor.name
    assert again.model.method.key_smoothing == 0.4
    assert again.model.clip.config.vision.blocks.activation == "quick_gelu"


def test_a_loaded_model_can_be_saved_and_changed(saved, photo, tmp_path):
    _, path = saved
    again = ovseg.load(str(path), dtype="bfloat16", batch_size=1)
    again.set_vocabulary(["tree", "house"])
    second = ovseg.load(again.save(tmp_path / "again.safetensors"))
    assert second.vocabulary.names == ("tree", "house")
    assert second.segment(photo).label_map.shape == photo.shape[:2]


def test_no_path_of_this_machine_is_written(saved):
    with safe_open(saved[1], "pt") as file:
        assert json.loads(file.metadata()["ovseg"])["info"]["sources"] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99}, "release format 99, this version of ovseg reads 1; update"),
        ({"towers": {"vision": {}, "text": {}}}, "header is not valid"),
        (
            {"protocol": {"resize": {"short": 1}, "steps": [{"step": "os.system"}], "pad": None}},
            "header is not valid",
        ),
        ({"vocabulary": {"classes": []}}, "header is not valid"),
        ({"settings": None}, "header is not valid"),
    ],
)
def test_a_bad_header_is_refused(saved, changes, message):
    rewrite(saved[1], **changes)
    with pytest.raises(CheckpointError, match=message):
        ovseg.load(saved[1])


def test_methods_and_fields_come_from_a_list(saved):
    rewrite(saved[1], method="os")
    with pytest.raises(ValueError, match="unknown method 'os'"):
        ovseg.load(saved[1])
    rewrite(saved[1], method="maskclip", settings={"__class__": "x"})
    with pytest.raises(ValueError, match="no field '__class__'"):
        ovseg.load(saved[1])


def test_what_is_no_release_is_named(tmp_path, saved):
    plain = tmp_path / "plain.safetensors"
    save_file({"x": torch.zeros(1)}, plain)
    with pytest.raises(CheckpointError, match="no release of ovseg"):
        ovseg.load(plain)
    with pytest.raises(FileNotFoundError, match="no release file"):
        ovseg.load(tmp_path / "missing.safetensors")
    truncated = tmp_path / "cut.safetensors"
    truncated.write_bytes(saved[1].read_bytes()[:5000])
    with pytest.raises(CheckpointError):
        ovseg.load(truncated)


def test_missing_weights_are_named(saved):
    with safe_open(saved[1], "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys() if "ln_post" not in name}  # noqa: SIM118
    save_file(tensors, saved[1], metadata)
    with pytest.raises(CheckpointError, match="ln_post"):
        ovseg.load(saved[1])
