"""CAT-Seg as its authors compute it (cvlab-kaist/CAT-Seg): the head alone, and the whole model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.dense.view import View
from ovseg.dense.windows import Pad, slide
from ovseg.evaluation.golden.case import Case
from ovseg.methods.cat_seg import CATSeg
from ovseg.methods.cat_seg.aggregator import Aggregator, cost_volume
from ovseg.methods.cat_seg.config import AggregatorConfig
from ovseg.methods.cat_seg.converter import (
    convert_aggregator,
    convert_model,
    to_published,
    to_published_aggregator,
)
from ovseg.methods.cat_seg.model import CATSegModel
from ovseg.methods.cat_seg.tuning import parameter_groups, set_trainable
from ovseg.towers.clip import CLIP, CLIPConfig
from ovseg.towers.clip_vit import ViTConfig
from ovseg.towers.layers import BlockConfig
from ovseg.towers.table import OPENAI_MEAN, OPENAI_STD
from ovseg.towers.text import TextConfig
from ovseg.towers.text_prefix import encode_prompts
from ovseg.vocab.text_bank import TextBank
from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["outputs"]

_PAD = Pad(32, stretch=True)  # the runner's size divisibility


@torch.enable_grad()
def outputs(case: Case) -> dict[str, Tensor]:
    """Every stage of the head or the model, gradients, and weights after a step."""
    found = _head(case) if case.name.startswith("agg") else _model(case)
    return {name: value.detach() for name, value in found.items()}


def _weights(case: Case) -> dict[str, Tensor]:
    return {name[3:]: case.tensor(name) for name in case.arrays if name.startswith("sd/")}


def _config(hp: Mapping[str, Any]) -> AggregatorConfig:
    return AggregatorConfig(
        embed_dim=hp["text_guidance_dim"],
        width=hp["hidden_dim"],
        layers=hp["num_layers"],
        heads=hp["nheads"],
        window=hp["window_size"],
        attention=hp["attention_type"],
        templates=hp["prompt_channel"],
        appearance_dim=hp["appearance_guidance_proj_dim"],
        text_dim=hp["text_guidance_proj_dim"],
        guidance_dims=tuple(hp["decoder_guidance_dims"]),
        decoder_guidance_dims=tuple(hp["decoder_guidance_proj_dims"]),
        decoder_dims=tuple(hp["decoder_dims"]),
        pad_len=hp["pad_len"],
    )


def _head(case: Case) -> dict[str, Tensor]:
    """``Aggregator`` on given features; the texts of a batch may differ, so its images go one by one."""
    hp = case.hp["agg"]
    head = Aggregator(_config(hp))
    head.load_state_dict(convert_aggregator(_weights(case)))
    taps: dict[str, list[Tensor]] = {}
    for i, layer in enumerate(head.layers):
        for name, module in (("spatial", layer.spatial), ("class", layer.classes)):
            seen = taps.setdefault(f"layer{i}_{name}", [])
            module.register_forward_hook(  # type: ignore[union-attr]
                lambda _module, _inputs, out, seen=seen: seen.append(out.detach())
            )
    features, text = case.tensor("img_feats"), case.tensor("text_feats")
    guidance = [case.tensor(f"guidance{i}") for i in range(3)]
    pooling = tuple(hp["pooling_size"])
    logits = torch.cat(
        [
            head(features[b : b + 1], text[b], [level[b : b + 1] for level in guidance], pooling)
            for b in range(len(features))
        ]
    )
    (logits * case.tensor("cotangent") * (logits > -99)).mean().backward()
    cost = torch.cat([cost_volume(features[b : b + 1], text[b]) for b in range(len(features))])
    kept = [mask for volume in cost if (mask := head.kept_classes(volume)) is not None]
    out = {
        "corr": cost.transpose(1, 2),
        "corr_in_bt": cost.flatten(0, 1),
        "class_score_max": cost.flatten(2).amax(dim=2),
        "proj_guidance": head.appearance(guidance[0]),
        "proj_text": torch.stack([head.guide_by_text(rows) for rows in text]),
        "logits": logits,
        **{name: torch.stack(seen).permute(0, 4, 1, 2, 3) for name, seen in taps.items()},
    }
    if kept:
        out["kept_mask"] = torch.stack(kept)
    found = _gradients(head)
    return out | _gradient_outputs(case, to_published_aggregator(found, (1, 1), 1))


def _model(case: Case) -> dict[str, Tensor]:
    model = _Recorder(_clip(case), _method(case))
    model.load_state_dict(convert_model(_weights(case)))
    rows = encode_prompts(model.clip.text, case.tensor("tokens").tolist())[:, None]
    text_embed = F.normalize(rows.detach()[:, 0], dim=-1)
    if case.hp["kind"] == "train":
        return {"text_embed": text_embed} | _step(case, model)
    names = [f"class {k}" for k in range(len(rows))]
    bank = TextBank(rows, False, torch.arange(len(rows)), Vocabulary.of(names))
    image = case.tensor("image0").float() / 255
    grid = slide((image.shape[1], image.shape[2]), pad=_PAD)
    view = View(image, grid, tuple(case.hp["out_size"]), OPENAI_MEAN, OPENAI_STD, batch_size=4)
    with torch.no_grad():
        field = model.eval().score_field(view, bank)
    first = -1 if case.hp["sliding"] else 0
    return {"text_embed": text_embed, "sem_seg": field.full()} | model.outputs(first)


def _step(case: Case, model: _Recorder) -> dict[str, Tensor]:
    """One training step: AdamW after clipping the norm of all gradients."""
    set_trainable(model, case.hp["finetune"])
    model.train()
    rows = encode_prompts(model.clip.text, case.tensor("tokens").tolist())[:, None]
    count = sum(name.startswith("image") for name in case.arrays)
    mean, std = (torch.tensor(values)[:, None, None] for values in (OPENAI_MEAN, OPENAI_STD))
    images = [(case.tensor(f"image{i}").float() / 255 - mean) / std for i in range(count)]
    labels = torch.stack([case.tensor(f"target{i}") for i in range(count)])
    loss = model.loss(_PAD(torch.stack(images)), labels, rows)
    loss.backward()
    found = to_published(_gradients(model), (1, 1), 1)
    out = model.outputs(0) | _gradient_outputs(case, found) | {"loss": loss}
    groups = parameter_groups(model)
    torch.nn.utils.clip_grad_norm_([group["params"][0] for group in groups], 0.01)
    torch.optim.AdamW(groups).step()
    after = to_published(dict(model.named_parameters()), (1, 1), 1)
    return out | {f"post_step/{name}": value for name, value in after.items()}


class _Recorder(CATSegModel):
    """Remembers what goes through."""

    def __init__(self, clip: CLIP, method: CATSeg) -> None:
        super().__init__(clip, method)
        self.last = (clip.config.vision.blocks.layers - 1, "out")  # type: ignore[union-attr]
        self.readout = replace(self.readout, taps=(*self.taps, self.last))
        self.images: list[Tensor] = []
        self.seen: list[tuple[Any, Tensor]] = []

    def features(self, image: Tensor) -> Any:
        self.images.append(image)
        return super().features(image)

    def head(self, features: Any, rows: Tensor) -> Tensor:
        logits = super().head(features, rows)
        self.seen.append((features, logits))
        return logits

    def outputs(self, index: int) -> dict[str, Tensor]:
        """Of all images, or the first of the first batch (0), or the last of the last (-1)."""
        images = torch.cat(self.images)
        features, _ = self.seen[index]
        pick = [index]
        guidance = self.guidance(features)
        names = ("tapped_tokens0", "tapped_tokens1", "dense_tokens_0")
        taps = dict(zip(names, (*self.taps, self.last)))
        tokens = {name: features.taps[tap][pick].transpose(0, 1) for name, tap in taps.items()}
        return tokens | {
            "clip_input": images[..., ::4, ::4],
            "clip_input_ch0_row0": images[:, 0, 0],
            "clip_input_mean": images.mean(dim=(2, 3)),
            "guid0_dense_features": guidance[0][pick],
            "guid1_upsampled": guidance[1][pick],
            "guid2_upsampled": guidance[2][pick][..., ::2, ::2],
            "agg_logits": torch.cat([logits for _, logits in self.seen]),
        }


def _clip(case: Case) -> CLIP:
    hp, weights = case.hp["clip"], _weights(case)
    width, size, dim = hp["width"], hp["image_resolution"], hp["embed_dim"]
    vision = BlockConfig(width, hp["layers"], hp["heads"], 4 * width, "quick_gelu")
    width = hp["text_width"]
    text = BlockConfig(width, hp["text_layers"], hp["text_heads"], 4 * width, "quick_gelu")
    prefix = "sem_seg_head.predictor.clip_model."
    words = len(weights[f"{prefix}token_embedding.weight"])
    length = len(weights[f"{prefix}positional_embedding"])
    return CLIP(
        CLIPConfig(ViTConfig(vision, hp["patch"], (size, size), dim), TextConfig(text, words, length, dim))
    )


def _method(case: Case) -> CATSeg:
    pooling = case.hp["agg"]["pooling_size"][0]
    return CATSeg(
        canvas=640 if case.hp.get("sliding") else None,
        pooling=pooling,
        train_pooling=pooling,
        guidance_blocks=(3, 7) if case.hp["clip_pretrained"] == "ViT-B/16" else (7, 15),
        aggregator=_config(case.hp["agg"]),
        prompts=case.hp["clip"].get("prompt_length", 0),
        ignored="negative",
    )


def _gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    """Prompts of the last block have no effect, but lie in one tensor with the others in the reference."""
    found = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    unused = {name: torch.zeros_like(p) for name, p in model.named_parameters() if name.endswith(".prompt")}
    return {
        name: g.clone() if g is not None else unused[name]
        for name, g in found.items()
        if g is not None or name in unused
    }


def _gradient_outputs(case: Case, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    norms = torch.stack([found[name].norm() for name in case.meta["info"]["grad_norm_names"]])
    out = {f"grad/{name}": value for name, value in found.items()}
    total = torch.stack([value.norm() for value in found.values()]).norm()
    return out | {"grad_norms": norms, "grad_norm_total": total}
