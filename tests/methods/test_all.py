"""What every method must do; a new method file is covered by being there."""

from __future__ import annotations

import pytest
import torch

import ovseg
from ovseg.dense.view import View
from ovseg.dense.windows import slide
from ovseg.inference.protocol import Protocol
from ovseg.inference.steps import check_order
from ovseg.methods.registry import get_method, list_methods, zoo
from ovseg.methods.two_towers import TwoTowerSegmenter
from ovseg.towers.table import list_towers
from ovseg.vocab.templates import templates
from ovseg.vocab.text_bank import TextBank
from ovseg.vocab.vocabulary import Vocabulary

METHODS = list_methods()


def bank(classes):
    """Random unit rows in the joint space of ``tiny_clip``."""
    rows = torch.nn.functional.normalize(torch.randn(classes, 1, 32), dim=-1)
    vocabulary = Vocabulary.of([f"class {k}" for k in range(classes)])
    return TextBank(rows, True, torch.arange(classes), vocabulary)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(32, 32), (48, 80), (37, 61), (100, 17)])
@pytest.mark.parametrize("classes", [1, 3, 300])
def test_any_size_and_number_of_classes(method, size, classes, tiny_clip):
    model = ovseg.build(method, tiny_clip).model
    with torch.inference_mode():
        scores = model(torch.randn(2, 3, *size), bank(classes))
    assert scores.shape[:2] == (2, classes)
    if not isinstance(model, TwoTowerSegmenter):  # whose grid is the second tower's
        finer = scores.shape[2] // (size[0] // 16)  # some heads score several cells per patch
        assert scores.shape[2:] == (size[0] // 16 * finer, size[1] // 16 * finer)
    assert scores.isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_an_image_does_not_depend_on_its_batch(method, tiny_clip):
    model = ovseg.build(method, tiny_clip).model
    rows, images = bank(3), torch.randn(3, 3, 48, 64)
    with torch.inference_mode():
        together = model(images, rows)
        alone = torch.cat([model(image[None], rows) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_score_field_covers_the_image(method, tiny_clip):
    model = ovseg.build(method, tiny_clip).model
    view = View(
        torch.rand(3, 70, 90), slide((70, 90), 64, 32), (35, 45), (0.5,) * 3, (0.5,) * 3, batch_size=2
    )
    with torch.inference_mode():
        field = model.score_field(view, bank(2))
    assert field.full().shape == (2, 35, 45)


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_stays_close(method, tiny_clip, photo):
    torch.manual_seed(0)  # some methods have a head that has not learned anything yet
    full = ovseg.build(method, tiny_clip).segment(photo, ["cat", "dog", "sky"], background="none")
    torch.manual_seed(0)
    half = ovseg.build(method, tiny_clip, dtype="bfloat16")
    result = half.segment(photo, ["cat", "dog", "sky"], background="none")
    ovseg.build(method, tiny_clip, dtype="float32")  # the fixture's weights are shared
    assert (result.label_map == full.label_map).mean() > 0.9


@pytest.mark.parametrize("method", METHODS)
def test_declaration(method):
    cls = get_method(method)
    assert cls.title and cls.paper and cls.reference and cls.code_licence
    assert set(cls.towers) <= {*list_towers(), *cls.trained}
    assert isinstance(cls.protocols["default"], Protocol)
    for name, protocol in cls.protocols.items():
        assert protocol.name == name
        check_order(protocol.steps)
        assert isinstance(protocol.templates, tuple) or templates(protocol.templates)
        if protocol.words is not None:
            assert len(Vocabulary.of(protocol.words)) > 1


def test_zoo_names_are_method_and_tower():
    assert zoo()
    for name, row in zoo().items():
        assert name == row.name == f"{row.method}_{row.tower}"


def test_unknown_names_list_the_nearest():
    with pytest.raises(ValueError, match=r"unknown model 'maskclip_vit_b61.openai'; near: .*_b16.openai"):
        ovseg.load("maskclip_vit_b61.openai")
    with pytest.raises(ValueError, match="unknown method 'maskclib'; near: maskclip"):
        ovseg.build("maskclib", "vit_b16.openai")
    assert "maskclip_vit_b16.openai" in ovseg.list_models("maskclip*")
    assert not ovseg.list_models("nothing*")
