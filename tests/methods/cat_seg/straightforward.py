"""Cost aggregation written down as the paper's figures and the authors' configuration say it, nothing saved.

The reference for equality, speed and memory of ``ovseg.methods.cat_seg``: guidance is concatenated to the tokens
of every class, padding tokens are computed one by one, windows are rolled and masked, all classes go at once.
Weights are a mapping under the published names.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


class Straightforward:
    """Call with what ``Aggregator.forward`` takes.

    Args:
        weights: In the published layout, masks of shifted windows included.
        config: ``AggregatorConfig``.
    """

    def __init__(self, weights, config):
        self.w, self.config = weights, config

    def __call__(self, features, text, guidance, pooling=(1, 1)):
        config = self.config
        batch, classes = len(features), len(text)
        cost = torch.einsum(
            "bchw,ktc->bkthw", F.normalize(features, dim=1), F.normalize(text, dim=-1)
        )  # (B, K, T, h, w)
        rows = text.expand(batch, *text.shape)
        kept = None
        if 0 < config.pad_len < classes:
            kept = cost.flatten(2).amax(-1).topk(config.pad_len, dim=1).indices
            pick = kept[:, :, None, None]
            cost = cost.gather(1, pick[..., None].expand(-1, -1, *cost.shape[2:]))
            rows = F.normalize(rows, dim=-1).gather(1, pick.expand(-1, -1, *rows.shape[2:]))
        x = self.conv("conv1", cost.flatten(0, 1), 3).unflatten(0, (batch, -1))  # (B, K, D, h, w)
        appearance = self.conv("guidance_projection.0", guidance[0], 1).relu()
        text_guidance = self.linear("text_guidance_projection.0", F.normalize(rows.mean(2), dim=-1)).relu()
        for i in range(config.layers):
            x = self.spatial(f"layers.{i}.swin_block", x, appearance)
            x = self.classes(f"layers.{i}.attention", x, text_guidance, pooling)
        logits = self.decode(x, guidance[1:])
        if kept is None:
            return logits
        everything = logits.new_full((batch, classes, *logits.shape[2:]), -100.0)
        return everything.scatter(1, kept[:, :, None, None].expand_as(logits), logits)

    def linear(self, name, x):
        return F.linear(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def conv(self, name, x, padding):
        return F.conv2d(x, self.w[f"{name}.weight"], self.w.get(f"{name}.bias"), padding=padding)

    def norm(self, name, x):
        weight, bias = self.w[f"{name}.weight"], self.w[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias)

    def spatial(self, name, x, appearance):
        batch, classes = x.shape[:2]
        tokens = x.flatten(0, 1).permute(0, 2, 3, 1)  # (B K, h, w, D)
        image = appearance.permute(0, 2, 3, 1).repeat_interleave(classes, 0)
        image = self.norm(f"{name}.guidance_norm", image)
        for block, shifted in (("block_1", False), ("block_2", True)):
            tokens = self.swin(f"{name}.{block}", tokens, image, shifted)
        return tokens.permute(0, 3, 1, 2).unflatten(0, (batch, classes))

    def swin(self, name, x, image, shifted):
        window, mask = self.config.window, self.w.get(f"{name}.attn_mask")
        if min(x.shape[1:3]) <= window:
            window = min(x.shape[1:3])
        shift = window // 2 if shifted and mask is not None else 0
        normed = torch.cat([self.norm(f"{name}.norm1", x), image], -1).roll((-shift, -shift), (1, 2))
        n, h, w, _ = normed.shape
        cut = normed.view(n, h // window, window, w // window, window, -1).transpose(2, 3)
        cut = cut.reshape(n, -1, window * window, normed.shape[-1])  # (n, windows, N, D + G)
        heads = self.config.heads
        q, k, v = (
            self.linear(f"{name}.attn.{part}", cut[..., :width]).unflatten(-1, (heads, -1)).transpose(2, 3)
            for part, width in (("q", None), ("k", None), ("v", x.shape[-1]))
        )
        scores = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)
        if shift:
            scores = scores + mask[:, None]
        mixed = (scores.softmax(-1) @ v).transpose(2, 3).flatten(3)
        mixed = self.linear(f"{name}.attn.proj", mixed)
        mixed = mixed.view(n, h // window, w // window, window, window, -1).transpose(2, 3)
        x = x + mixed.reshape(x.shape).roll((shift, shift), (1, 2))
        hidden = F.gelu(self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.norm2", x)))
        return x + self.linear(f"{name}.mlp.fc2", hidden)

    def classes(self, name, x, text, pooling):
        batch, classes, _, h, w = x.shape
        pooled = F.avg_pool2d(x.flatten(0, 1), pooling).unflatten(0, (batch, classes))
        grid = pooled.shape[-2:]
        tokens = pooled.permute(0, 3, 4, 1, 2).flatten(0, 2)  # (B h w, K, D)
        missing = self.config.pad_len - classes
        if missing > 0:
            padding = self.w[f"{name}.padding_tokens"].expand(len(tokens), missing, -1)
            tokens = torch.cat([tokens, padding], 1)
            padding = self.w[f"{name}.padding_guidance"].expand(batch, missing, -1)
            text = torch.cat([text, padding], 1)
        text = text.repeat_interleave(grid[0] * grid[1], 0)
        normed = self.norm(f"{name}.norm1", tokens)
        both = torch.cat([normed, text], -1)
        q, k, v = (
            self.linear(f"{name}.attention.{part}", y).unflatten(-1, (self.config.heads, -1))
            for part, y in (("q", both), ("k", both), ("v", normed))
        )
        if self.config.attention == "linear":
            q, k = F.elu(q) + 1, F.elu(k) + 1
            summary = torch.einsum("nshd,nshv->nhdv", k, v)
            share = 1 / (torch.einsum("nlhd,nhd->nlh", q, k.sum(1)) + 1e-6)
            mixed = torch.einsum("nlhd,nhdv,nlh->nlhv", q, summary, share)
        else:
            scores = torch.einsum("nlhd,nshd->nhls", q, k) * q.shape[-1] ** -0.5
            mixed = torch.einsum("nhls,nshd->nlhd", scores.softmax(-1), v)
        tokens = tokens + mixed.flatten(2)
        hidden = self.linear(f"{name}.MLP.0", self.norm(f"{name}.norm2", tokens)).relu()
        tokens = tokens + self.linear(f"{name}.MLP.2", hidden)
        tokens = tokens[:, :classes].unflatten(0, (batch, *grid)).permute(0, 3, 4, 1, 2)
        up = F.interpolate(tokens.flatten(0, 1), (h, w), mode="bilinear", align_corners=True)
        return x + up.unflatten(0, (batch, classes))

    def decode(self, x, guidance):
        batch, classes = x.shape[:2]
        y = x.flatten(0, 1)
        for i, image in enumerate(guidance):
            name = f"decoder{i + 1}"
            image = self.conv(f"decoder_guidance_projection.{i}.0", image, 1).relu()
            up = F.conv_transpose2d(y, self.w[f"{name}.up.weight"], self.w[f"{name}.up.bias"], stride=2)
            y = torch.cat([up, image.repeat_interleave(classes, 0)], 1)
            for conv, norm in ((0, 1), (3, 4)):
                y = self.conv(f"{name}.conv.double_conv.{conv}", y, 1)
                weight = self.w[f"{name}.conv.double_conv.{norm}.weight"]
                bias = self.w[f"{name}.conv.double_conv.{norm}.bias"]
                y = F.group_norm(y, len(weight) // 16, weight, bias).relu()
        return self.conv("head", y, 1)[:, 0].unflatten(0, (batch, classes))
