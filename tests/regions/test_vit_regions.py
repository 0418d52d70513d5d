"""Regions of a ViT, and the proposal network on its tokens."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from ovseg.regions.embed import embed_crops
from ovseg.regions.proposals import Proposals
from ovseg.regions.region_clip import embed_regions, shared_maps
from ovseg.regions.rpn import ProposalNetwork, RPNConfig
from ovseg.regions.vit import CropTeacher, ViTRegions, shared_tokens
from ovseg.towers.clip import CLIP, architecture

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 1}
VISION = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 3, "head_width": 32}


@pytest.fixture
def visual():
    torch.manual_seed(0)
    return CLIP(architecture({"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT})).eval().visual


def test_the_whole_image_with_its_own_class_token_is_the_image_embedding(visual):
    image = torch.randn(1, 3, 32, 32)
    regions = ViTRegions(visual, 2, size=4)  # a cell each patch: nothing is resampled
    with torch.no_grad():
        regions.token.copy_(shared_tokens(visual, image, 2)[1][0])
        found = regions.embed(regions.maps(image), [torch.tensor([[0.0, 0, 32, 32]])])
        torch.testing.assert_close(found, visual(image), atol=1e-5, rtol=1e-4)


def test_regions_of_several_images_stay_in_order(visual):
    regions = ViTRegions(visual, 1, size=3)
    boxes = [torch.tensor([[0.0, 0, 16, 20], [4, 4, 30, 30]]), torch.tensor([[8.0, 0, 32, 32]])]
    batch = torch.randn(2, 3, 40, 32)
    with torch.no_grad():
        together = embed_regions(regions, shared_maps(regions, batch), boxes)
        alone = regions.embed(regions.maps(batch[1:]), boxes[1:])
    assert together.shape == (3, 16)
    torch.testing.assert_close(together[2:], alone, atol=1e-5, rtol=1e-4)


def test_only_what_runs_on_regions_is_trained(visual):
    regions = ViTRegions(visual, 2)
    regions.freeze()
    trained = {name for name, value in regions.named_parameters() if value.requires_grad}
    assert {"token", "visual.proj", "visual.ln_post.weight"} <= trained
    assert all("resblocks.2." in name for name in trained if "resblocks" in name)
    assert "visual.conv1.weight" not in trained and "visual.positional_embedding" not in trained
    with pytest.raises(ValueError, match="3 blocks"):
        ViTRegions(visual, 3)


def test_the_teacher_sees_crops(visual):
    batch, boxes = torch.randn(2, 3, 32, 32), [torch.zeros(0, 4), torch.tensor([[0.0, 0, 16, 24]])]
    with torch.no_grad():
        found = CropTeacher(visual, 16).embed(batch, boxes)
        wanted = embed_crops(visual, batch[1], boxes[1], 16)
    torch.testing.assert_close(found, normalize(wanted, dim=1))


def test_proposals_equal_those_of_mmdet():
    import ovseg.models  # noqa: F401  (mmcv's operations, before mmdet)
    from ovseg.models.detectors import ChannelNorm, FrozenLocaliser

    torch.manual_seed(0)
    config = RPNConfig(16, 8, convs=2, scales=(2, 4), ratios=(0.6, 1.0), before=30, threshold=0.7, after=5)
    head = {
        "type": "mmdet.RPNHead",
        "in_channels": 16,
        "feat_channels": 8,
        "num_convs": 2,
        "anchor_generator": {
            "type": "mmdet.AnchorGenerator",
            "scales": [2, 4],
            "ratios": [0.6, 1.0],
            "strides": [8],
            "scale_major": False,
        },
        "bbox_coder": {"type": "mmdet.DeltaXYWHBBoxCoder"},
    }
    theirs = FrozenLocaliser(None, head, {"type": ChannelNorm}, before=30, threshold=0.7, after=5)
    ours = ProposalNetwork(config)
    for value in ours.parameters():
        torch.nn.init.normal_(value, std=0.3)
    theirs.rpn_head.load_state_dict(ours.state_dict())
    theirs.init_weights()  # mmengine's runner calls it after the weights were read
    tokens = torch.randn(1, 16, 6, 7)
    with torch.no_grad():
        (wanted,) = theirs.predict((tokens,), [(48, 56)])
        found = ours.propose(tokens, 8)
    assert isinstance(found, Proposals) and len(found) == 5
    torch.testing.assert_close(found.boxes, wanted.bboxes, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.logits, wanted.logits)
