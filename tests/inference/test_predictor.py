"""From images and words to results."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

import ovseg
from ovseg.dense.windows import Pad
from ovseg.inference.background import BackgroundRule
from ovseg.inference.protocol import Protocol, Resize
from ovseg.inference.steps import Floor, Pamr, Softmax
from ovseg.towers.converters import to_open_clip
from ovseg.vocab.vocabulary import Vocabulary

CLASSES = ["cat", "dog", "blue sky"]


@pytest.fixture
def predictor(tiny_clip):
    return ovseg.build("maskclip", tiny_clip)


def test_one_image(predictor, photo):
    result = predictor.segment(photo, CLASSES, background="none")
    assert result.label_map.shape == photo.shape[:2] and result.label_map.dtype == np.int32
    assert result.scores.shape == photo.shape[:2] and result.scores.dtype == np.float16
    assert result.vocabulary.names == tuple(CLASSES)
    assert set(np.unique(result.label_map)) <= {0, 1, 2}
    assert result.seconds > 0 and result.image is not None


def naive(predictor, image, vocabulary, protocol):
    """The whole path by hand, at full size, with torch's own functions."""
    clip = predictor._clip
    resized = protocol.resize(image, 16)
    x = torch.from_numpy(resized).permute(2, 0, 1).float() / 255
    x = (x - torch.tensor(clip.info.mean)[:, None, None]) / torch.tensor(clip.info.std)[:, None, None]
    rows = predictor._plan(vocabulary, "none").bank.matrix
    height, width = x.shape[1:]
    canvas, count = torch.zeros(len(rows), height, width), torch.zeros(height, width)
    crop, stride = protocol.crop or max(height, width), protocol.stride or protocol.crop or max(height, width)
    tops = range(0, max(height - crop + stride - 1, 0) // stride * stride + 1, stride)
    lefts = range(0, max(width - crop + stride - 1, 0) // stride * stride + 1, stride)
    for top in tops:
        for left in lefts:
            bottom, right = min(top + crop, height), min(left + crop, width)
            top_, left_ = max(bottom - crop, 0), max(right - crop, 0)
            window = x[None, :, top_:bottom, left_:right]
            patches = clip.model.visual.forward_dense(window, predictor.model.readout).patches
            cosine = torch.einsum("qc,bchw->bqhw", rows, F.normalize(patches, dim=1))
            up = F.interpolate(cosine, window.shape[2:], mode="bilinear", align_corners=False)[0]
            canvas[:, top_:bottom, left_:right] += up
            count[top_:bottom, left_:right] += 1
    full = F.interpolate((canvas / count)[None], image.shape[:2], mode="bilinear", align_corners=False)[0]
    return full


@pytest.mark.parametrize(("crop", "stride"), [(None, None), (64, 48), (48, 48)])
def test_equals_the_naive_path(tiny_clip, photo, crop, stride):
    protocol = Protocol("test", Resize(80), crop=crop, stride=stride, steps=(Softmax(40.0),))
    predictor = ovseg.build("maskclip", tiny_clip, protocol=protocol)
    result = predictor.segment(photo, CLASSES, class_scores=True)
    with torch.no_grad():
        scores = (40 * naive(predictor, photo, Vocabulary.of(CLASSES), protocol)).softmax(dim=0)
    top = scores.topk(2, dim=0).values
    clear = (top[0] - top[1] > 1e-4).numpy()
    assert clear.mean() > 0.9
    assert (result.label_map == scores.argmax(dim=0).numpy())[clear].all()
    np.testing.assert_allclose(result.class_scores, scores.numpy(), atol=1e-3)


def test_a_stream_goes_on_past_a_bad_file(predictor, photo, tmp_path):
    good, bad, empty = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"
    Image.fromarray(photo).save(good)
    bad.write_bytes(good.read_bytes()[:60])
    empty.touch()
    results = list(predictor.segment([good, bad, empty, str(good), photo], CLASSES))
    assert [bool(result) for result in results] == [True, False, False, True, True]
    assert str(bad) in results[1].message and str(empty) in results[2].message
    assert results[0].source == str(good)
    with pytest.raises(ValueError, match="empty"):
        predictor.segment(empty, CLASSES)


def test_a_stream_is_lazy(predictor, photo):
    taken = []

    def images():
        for i in range(100):
            taken.append(i)
            yield photo

    stream = predictor.segment(images(), CLASSES)
    next(stream)
    assert len(taken) == 1


def test_wrong_arguments_show_before_the_first_image(predictor, photo):
    with pytest.raises(ValueError, match="no classes"):
        predictor.segment(iter([photo]))
    with pytest.raises(ValueError, match="unknown background rule"):
        predictor.segment(iter([photo]), CLASSES, background="sometimes")


def test_background_words_compete(predictor, photo):
    everything = predictor.segment(photo, ["cat"], background="none")
    assert (everything.label_map == 0).all()
    some = predictor.segment(photo, ["cat"])
    assert some.vocabulary.names == ("cat",)
    assert some.unlabelled > 0


def test_marked_background_classes_leave_the_result(predictor, photo):
    plain = predictor.segment(
        photo, ["cat", "stuff: sky | wall", "dog"], background="none", class_scores=True
    )
    marked = predictor.segment(
        photo, ["cat", "!stuff: sky | wall", "dog"], background="none", class_scores=True
    )
    assert marked.vocabulary.names == ("cat", "dog")
    expected = np.array([0, -1, 1], np.int32)[plain.label_map]
    assert (marked.label_map == expected).all()
    assert np.array_equal(marked.class_scores, plain.class_scores[[0, 2]])
    with pytest.raises(ValueError, match="all classes are marked as background"):
        predictor.segment(photo, ["!sky"], background="none")


@pytest.mark.parametrize("rule", ["floor=0.5", "margin=0.3"])
def test_unsure_pixels_are_unlabelled(predictor, photo, rule):
    every = predictor.segment(photo, CLASSES, background="none", class_scores=True)
    result = predictor.segment(photo, CLASSES, background=rule)
    top = np.sort(every.class_scores.astype(np.float32), axis=0)
    sure = top[-1] >= 0.5 if rule.startswith("floor") else top[-1] - top[-2] >= 0.3
    assert 0 < sure.mean() < 1
    assert ((result.label_map >= 0) == sure).mean() > 0.99


@pytest.mark.parametrize(
    "text", ["floor", "floor=", "floor=x", "floor=1.5", "margin=-1", "words=1", "", "NONE"]
)
def test_background_rules_are_checked(text):
    with pytest.raises(ValueError, match="background"):
        BackgroundRule.parse(text)


def test_set_vocabulary_needs_no_rebuild(predictor, photo):
    predictor.set_vocabulary(["cat", "dog"])
    assert predictor.segment(photo).vocabulary.names == ("cat", "dog")
    predictor.set_vocabulary(["tree", "house", "sea"], templates=["a drawing of a {}."])
    assert predictor.vocabulary.names == ("tree", "house", "sea")
    assert predictor.segment(photo, background="none").vocabulary.names == ("tree", "house", "sea")


def test_paper_protocols_bring_their_words(tiny_clip, photo):
    protocol = Protocol(
        "voc21",
        Resize(64),
        pad=Pad(16, "centre"),
        words="voc21.sclip",
        steps=(Pamr(1, (1,)), Softmax(40.0), Floor(0.1, 0)),
    )
    result = ovseg.build("maskclip", tiny_clip, protocol=protocol).segment(photo)
    assert result.vocabulary.names[0] == "background" and len(result.vocabulary) == 21
    assert result.label_map.min() >= 0


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (16, 16), (333, 77)])
def test_any_image_size(predictor, shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    assert predictor.segment(image, CLASSES).size == shape


def test_resize_rounds_as_mmcv_does():
    assert Resize(448).size(360, 480, 16) == (448, 597)
    assert Resize(448, whole_patches=True).size(360, 480, 16) == (448, 592)
    assert Resize(512, 1024).size(1024, 2048, 16) == (512, 1024)
    assert Resize(520, 520).size(375, 500, 16) == (390, 520)
    assert Resize(336).size(3, 20000, 16) == (16, 2048)
    assert Resize(448, keep_ratio=False).size(360, 480, 16) == (448, 448)


@pytest.mark.parametrize("shrink", ["linear", "area", "bicubic"])
@pytest.mark.parametrize("size", [(40, 60), (400, 600)])
def test_resizing_filters(shrink, size):
    image = np.full((80, 120, 3), 77, np.uint8)
    resized = Resize(size[0], shrink=shrink)(image, 16)
    assert resized.shape == (*size, 3)
    assert (resized == 77).all()
    if size[0] < 80 and shrink != "linear":  # every pixel counts, so fine stripes become grey
        image[:, ::4] = 255
        assert np.ptp(Resize(20, shrink=shrink)(image, 16)[5:-5, 5:-5]) < 20


def test_features(predictor, photo, tiny_clip):
    features = predictor.features(photo)
    assert features.patches.shape[:2] == (1, 32) and features.space == "joint"
    again = ovseg.features(photo, tiny_clip)
    assert torch.equal(features.patches, again.patches)


def test_settings_of_tower_and_readout(tiny_clip, photo):
    plain = ovseg.build("maskclip", tiny_clip).features(photo).patches
    for settings in (
        {"activation": "quick_gelu"},
        {"residual": "none", "mlp": False},
        {"affinity": "key_key"},
    ):
        other = ovseg.build("maskclip", tiny_clip, **settings).features(photo).patches
        assert not torch.allclose(plain, other)
    assert torch.equal(plain, ovseg.build("maskclip", tiny_clip).features(photo).patches)


def test_wrong_settings_name_the_cure(tiny_clip):
    with pytest.raises(ValueError, match="no field 'key_smooting'; near: key_smoothing"):
        ovseg.build("maskclip", tiny_clip, key_smooting=1.0)
    with pytest.raises(ValueError, match="unknown affinity 'keykey'; near: key_key"):
        ovseg.build("maskclip", tiny_clip, affinity="keykey")
    with pytest.raises(ValueError, match="no protocol 'voc2'; near: voc20"):
        ovseg.build("maskclip", tiny_clip, protocol="voc2")
    with pytest.raises(ValueError, match="unknown dtype 'float33'"):
        ovseg.build("maskclip", tiny_clip, dtype="float33")
    with pytest.raises(ValueError, match="device 'gpu' cannot be used here"):
        ovseg.build("maskclip", tiny_clip, device="gpu")
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        ovseg.build("maskclip", tiny_clip, batch_size=0)


def test_a_weight_file_takes_the_activation_that_is_given(tiny_clip, photo, tmp_path):
    path = tmp_path / "clip.safetensors"
    save_file(to_open_clip(tiny_clip.model.state_dict()), path)
    with pytest.raises(ValueError, match="give activation="):
        ovseg.build("maskclip", path)
    for activation in ("gelu", "quick_gelu"):
        predictor = ovseg.build("maskclip", path, activation=activation)
        assert predictor.model.clip.config.vision.blocks.activation == activation
        assert predictor.features(photo).patches.isfinite().all()
