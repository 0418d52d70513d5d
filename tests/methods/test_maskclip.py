"""MaskCLIP's refinements and paper protocol."""

from __future__ import annotations

import pytest
import torch

from ovseg.methods.maskclip import MaskCLIP, denoise_prompts, smooth_by_keys


def test_denoising_rules_out_what_no_patch_is_sure_of():
    scores = torch.zeros(1, 3, 1, 2)
    scores[0, 0, 0, 0] = 0.1  # softmax(10, 0, 0): sure
    out = denoise_prompts(scores, 0.5)
    assert torch.equal(out[0, 0], scores[0, 0])
    assert (out[0, 1:] == -100).all()


@pytest.mark.parametrize("axis", ["channels", "positions"])
def test_smoothing_by_hand(axis):
    torch.manual_seed(0)
    scores, keys = 0.02 * torch.randn(2, 4, 2, 3), torch.randn(2, 6, 5)
    out = smooth_by_keys(scores, keys, 0.5, axis)
    for b in range(2):
        p = (100 * scores[b]).softmax(dim=0).flatten(1)
        norm = keys[b].norm(dim=1, keepdim=True) if axis == "channels" else keys[b].norm(dim=0, keepdim=True)
        similarity = (keys[b] / norm) @ (keys[b] / norm).T
        for i in range(6):
            expected = p[:, i] if p[:, i].max() >= 0.5 else p @ similarity[:, i]
            torch.testing.assert_close(out[b].flatten(1)[:, i], expected, atol=1e-5, rtol=1e-5)


def test_smoothing_is_off_for_sure_patches():
    scores = torch.zeros(1, 2, 1, 3)
    scores[0, 1] = 1.0
    out = smooth_by_keys(scores, torch.randn(1, 3, 4), 0.9)
    assert torch.equal(out, (100 * scores).softmax(dim=1))


def test_keys_are_tapped_only_where_they_are_used():
    assert MaskCLIP().readout.taps == ()
    assert MaskCLIP(key_smoothing=1.0).readout.taps == ((-1, "k"),)


def test_the_paper_protocol_names_its_quirks():
    protocol = MaskCLIP.protocols["voc20"]
    assert protocol.fields == {"activation": "gelu", "ln_eps": 1e-6, "ks_axis": "positions"}
    assert protocol.normalisation == "imagenet"
    assert protocol.paper["vit_b16.openai"] == 49.5
    assert MaskCLIP.protocols["default"].fields == {}
