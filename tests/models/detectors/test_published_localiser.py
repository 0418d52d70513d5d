from __future__ import annotations

import numpy as np
import pytest
import torch
from test_region_clip_detector import to_detectron2

import ovseg
from ovseg.inference.protocol import Resize
from ovseg.models.detectors import load_localiser
from ovseg.models.detectors.published_localiser import _network
from ovseg.towers.checkpoints import CheckpointError


def published(tmp_path, fpn, convs, norm=False):
    """A file of detectron2 with random weights, and the network in it."""
    torch.manual_seed(0)
    names = {f"backbone.layer3.{k}.conv1.weight": torch.zeros(1) for k in range(6)}
    names |= {f"rpn_head.rpn_conv.{k}.conv.weight": torch.zeros(1) for k in range(convs if convs > 1 else 0)}
    names |= {"neck.lateral_convs.0.bn.weight": torch.zeros(1)} if norm else {}
    channels = 256 if fpn else 1024
    network = _network({**names, "rpn_head.rpn_cls.weight": torch.zeros(1, channels, 1, 1)}, fpn, "")
    torch.nn.init.normal_(network.rpn_head.rpn_cls.weight, std=0.5)
    path = tmp_path / "rpn.pth"
    torch.save({"model": to_detectron2(network.state_dict(), convs)}, path)
    return path, network


@pytest.mark.parametrize(("fpn", "convs", "norm"), [(False, 1, False), (True, 2, False), (True, 2, True)])
def test_the_architecture_is_read_from_the_file(fpn, convs, norm, tmp_path):
    path, network = published(tmp_path, fpn, convs, norm)
    assert any(".bn." in name for name in network.state_dict() if name.startswith("neck.")) == norm
    localiser = load_localiser(path)
    assert localiser.network.state_dict().keys() == network.state_dict().keys()
    assert localiser.divisor == (32 if fpn else 1)
    localiser.resize = Resize(64)
    image = np.random.default_rng(0).integers(0, 256, (100, 150, 3), np.uint8)
    found = localiser(image)
    assert 0 < len(found) <= 1000 and found.logits.diff().max() <= 0
    assert found.boxes.min() >= 0 and found.boxes[:, 2].max() <= 150.01 and found.boxes[:, 3].max() <= 100.01


def test_channels_are_bgr_without_scaling(tmp_path, monkeypatch):
    path, _ = published(tmp_path, False, 1)
    localiser, seen = load_localiser(path), {}
    plain = localiser.network.predict
    monkeypatch.setattr(
        localiser.network, "predict", lambda batch, sizes: seen.update(x=batch) or plain(batch, sizes)
    )
    localiser.resize = Resize(64)
    image = np.zeros((64, 96, 3), np.uint8)
    image[..., 0] = 200  # red
    localiser(image)
    torch.testing.assert_close(seen["x"][0, :, 5, 5], torch.tensor([-103.53, -116.28, 200 - 123.675]))


def test_proposals_for_a_predictor(tmp_path, tiny_clip, photo):
    path, _ = published(tmp_path, False, 1)
    localiser = load_localiser(path)
    localiser.resize = Resize(64)
    found = ovseg.build("maskclip", tiny_clip).detect(
        photo, ["car", "road"], proposals=localiser, threshold=0.0, background="none"
    )
    assert len(found) and found.boxes[:, 2].max() <= 101


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "clip.pth"
    torch.save({"visual.conv1.weight": torch.ones(3)}, path)
    with pytest.raises(CheckpointError, match="no part of a detectron2 proposal network"):
        load_localiser(path)
    torch.save({"backbone.res2.0.conv1.weight": torch.ones(3)}, path)
    with pytest.raises(CheckpointError, match="holds no ResNet-50"):
        load_localiser(path)
