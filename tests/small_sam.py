"""A SAM with random weights that takes squares of 64 pixels."""

from __future__ import annotations

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer


def small_sam() -> Sam:
    encoder = ImageEncoderViT(
        64, embed_dim=24, depth=4, num_heads=3, out_chans=16, use_rel_pos=True, window_size=3,
        global_attn_indexes=(1, 3),
    )  # fmt: skip
    prompts = PromptEncoder(16, (4, 4), (64, 64), 8)
    decoder = MaskDecoder(transformer_dim=16, transformer=TwoWayTransformer(2, 16, 2, 32))
    sam = Sam(encoder, prompts, decoder).eval()
    torch.manual_seed(0)
    for parameter in sam.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return sam
