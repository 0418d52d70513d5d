"""Our reading of SAM against segment-anything's own, on random weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from segment_anything import SamPredictor, sam_model_registry
from small_sam import small_sam

from ovseg.dense import operators
from ovseg.towers import sam as sam_module
from ovseg.towers.auxiliary import auxiliary_info
from ovseg.towers.checkpoints import CheckpointError
from ovseg.towers.sam import SamTower, load_sam


def last_attention(sam, square):
    """The last block's attention after its softmax, and its values, through segment-anything's modules."""
    seen = {}
    block = sam.image_encoder.blocks[-1].attn
    hook = block.register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))
    embedding = sam.image_encoder(square)
    hook.remove()
    _, h, w, _ = seen["x"].shape
    qkv = block.qkv(seen["x"]).reshape(h * w, 3, block.num_heads, -1).permute(1, 2, 0, 3)
    unit = torch.eye(h * w)
    rows = []
    for head in range(block.num_heads):  # the weights are what becomes of unit vectors as values
        q, k, _ = qkv[:, head]
        scores = (q * block.scale) @ k.T
        grid_q = q.view(h, w, -1)
        up = sam_module.get_rel_pos(h, h, block.rel_pos_h)
        across = sam_module.get_rel_pos(w, w, block.rel_pos_w)
        for i in range(h * w):
            y, x = divmod(i, w)
            for j in range(h * w):
                v, u = divmod(j, w)
                scores[i, j] += grid_q[y, x] @ up[y, v] + grid_q[y, x] @ across[x, u]
        rows.append(scores.softmax(-1) @ unit)
    return torch.stack(rows), qkv[2], embedding


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (50, 36, 3), np.uint8)


@pytest.mark.parametrize("elements", [1, 40, 1 << 20])
def test_encoding_equals_segment_anything(image, elements, monkeypatch):
    monkeypatch.setattr(operators, "_BLOCK_ELEMENTS", elements)
    sam = small_sam()
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    ours = SamTower(sam, auxiliary_info("sam_vit_b")).encode(image)
    close = {"atol": 2e-5, "rtol": 2e-5}
    torch.testing.assert_close(ours.embedding, predictor.features, **close)
    assert ours.input_size == predictor.input_size == (64, 46)
    assert ours.grid == (4, 2)

    resized = torch.from_numpy(predictor.transform.apply_image(image)).permute(2, 0, 1)[None]
    with torch.no_grad():
        attention, values, _ = last_attention(sam, sam.preprocess(resized))
    inside = torch.arange(16).view(4, 4)[:4, :2].flatten()
    torch.testing.assert_close(ours.values, values[:, inside], **close)
    expected = attention[:, inside][:, :, inside]
    torch.testing.assert_close(ours.weights(slice(None)), expected, **close)
    torch.testing.assert_close(ours.weights(slice(2, 5)), expected[:, 2:5], **close)


def test_features_are_the_encoders_of_the_stretched_image():
    sam = small_sam()
    images = torch.rand(2, 3, 40, 24)
    square = F.interpolate(images, (64, 64), mode="bilinear", align_corners=False)
    with torch.no_grad():
        expected = sam.image_encoder(sam.preprocess(square * 255))
    dense = SamTower(sam, auxiliary_info("sam_vit_b"))(images)
    assert dense.space == "width" and dense.grid == (4, 4)
    torch.testing.assert_close(dense.patches, expected, atol=2e-5, rtol=2e-5)


def test_the_mask_decoder_keeps_its_precision():
    tower = SamTower(small_sam(), auxiliary_info("sam_vit_b")).to(torch.bfloat16)
    assert tower.sam.image_encoder.pos_embed.dtype == torch.bfloat16
    assert tower.sam.mask_decoder.iou_token.weight.dtype == torch.float32
    assert tower(torch.rand(1, 3, 32, 32)).patches.dtype == torch.bfloat16


def test_the_authors_files_load(tmp_path, monkeypatch, image):
    monkeypatch.setitem(sam_model_registry, "vit_b", small_sam)
    info = replace(auxiliary_info("sam_vit_b"), name="small")
    sam = small_sam()
    torch.save(sam.state_dict(), tmp_path / "sam.pth")
    loaded = load_sam(info, tmp_path / "sam.pth")
    assert not any(value.is_meta for value in [*loaded.parameters(), *loaded.buffers()])
    torch.testing.assert_close(loaded.sam.pixel_mean, sam.pixel_mean)
    expected = SamTower(sam, info).encode(image).embedding
    torch.testing.assert_close(loaded.encode(image).embedding, expected)
    torch.save({"x": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="as SAM vit_b"):
        load_sam(info, tmp_path / "other.pth")
