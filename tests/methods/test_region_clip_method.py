from __future__ import annotations

import pytest
import torch

import ovseg
from ovseg.methods.region_clip import RegionCLIP
from ovseg.towers.clip import CLIP, architecture
from ovseg.towers.download import WeightsUnavailableError

# Two stages of RN50's own widths are enough for a file that loads; its depth is read from the file.
VISION = {"image_size": 224, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}


@pytest.fixture
def published(tmp_path):
    """A file as ``regionclip_pretrained-cc_*.pth``, and the model in it."""
    torch.manual_seed(0)
    clip = CLIP(
        architecture({"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT, "quick_gelu": True})
    ).eval()
    state = {}
    for name, value in clip.state_dict().items():
        if name.startswith("visual.") and not name.endswith("num_batches_tracked"):
            state[name.replace("visual.", "backbone.")] = value
            state[name.replace("visual.", "teacher_backbone.")] = torch.zeros_like(value)
        if name.startswith("text."):
            state[name.replace("text.", "lang_encoder.")] = value
    path = tmp_path / "regionclip_pretrained-cc_rn50.pth"
    torch.save({"model": state}, path)
    return path, clip


def test_a_published_file_loads_with_its_own_words(published, photo):
    path, clip = published
    predictor = ovseg.build("region_clip", path)
    loaded = predictor.model.clip
    assert torch.equal(loaded.visual.attnpool.c_proj.weight, clip.visual.attnpool.c_proj.weight)
    assert torch.equal(loaded.text.text_projection, clip.text.text_projection)
    assert float(loaded.logit_scale.detach().exp()) == pytest.approx(100)
    found = predictor.detect(photo, ["car", "dog"], proposals="grid", threshold=0.0, background="none")
    assert len(found)


def test_a_detector_s_file_says_how_to_load_it(published, tmp_path):
    path, _ = published
    state = {n: v for n, v in torch.load(path)["model"].items() if not n.startswith("lang_encoder.")}
    with pytest.raises(ValueError, match="load_region_clip"):
        RegionCLIP.convert(state)
    assert RegionCLIP.owns(state) and not RegionCLIP.owns({"visual.conv1.weight": torch.ones(1)})


def test_weights_that_must_be_fetched_by_hand_name_the_file():
    with pytest.raises(WeightsUnavailableError, match=r"regionclip_pretrained-cc_rn50\.pth"):
        ovseg.load("region_clip_rn50.cc3m")
