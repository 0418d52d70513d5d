"""MaskCLIP: Zhou, Loy, Dai, Extract Free Dense Labels from CLIP, ECCV 2022.

The attention of the last block (of a ResNet: of the attention pool) mixes the whole image into every token.
It is left out: each token keeps its own value, which goes through the output projection alone (section 3.2).
Key smoothing and prompt denoising (section 3.3) act on the scores afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ovseg._lazy import F, torch
from ovseg.dense.attention import identity
from ovseg.dense.features import DenseFeatures
from ovseg.dense.readout import Readout
from ovseg.dense.windows import Pad
from ovseg.inference.protocol import Protocol, Resize
from ovseg.methods.method import DEFAULT_PROTOCOL, EMOJI_PROTOCOL, EMOJI_VITS, Method, pairs_protocol

if TYPE_CHECKING:
    from torch import Tensor

    from ovseg.towers.clip_resnet import ModifiedResNet

__all__ = ["MaskCLIP", "denoise_prompts", "smooth_by_keys"]

_SCALE = 100.0  # of the softmax that says how sure a patch is
_RULED_OUT = -100.0

# The authors' code runs OpenAI's weights with another activation, epsilon and normalisation than they were
# trained with. Their numbers need it.
_PAPER = Protocol(
    "paper",
    Resize(512),
    pad=Pad(16, stretch=True),
    templates="maskclip85",
    normalisation="imagenet",
    fields={"activation": "gelu", "ln_eps": 1e-6, "ks_axis": "positions"},
)


def _paper(name: str, resize: Resize, words: str, *miou: float) -> Protocol:
    towers = ("rn50.openai", "rn50x16.openai", "vit_b16.openai")
    return replace(_PAPER, name=name, resize=resize, words=words, paper=dict(zip(towers, miou)))


@dataclass(frozen=True)
class MaskCLIP(Method):
    """The published ViT path keeps the residual and the MLP of the last block.

    Attributes:
        key_smoothing: Patches whose best probability is below this take the scores of patches with similar
            keys (the paper's KS; its code has 1.0 in a comment). None: off.
        ks_axis: What the keys are normalised over for their similarity: ``channels``, or ``positions`` as in
            the authors' code.
        prompt_denoising: Classes whose best probability anywhere is below this are ruled out (the paper's PD;
            0.5 in a comment of its code). None: off.
        attention_pooling: For ResNets: keep the pool's attention, with every location as a query (ablation).
    """

    name = "maskclip"
    title = "MaskCLIP"
    paper = "Zhou, Loy, Dai, Extract Free Dense Labels from CLIP, ECCV 2022"
    reference = "chongzhou96/MaskCLIP"
    code_licence = "Apache-2.0"
    towers = (
        *EMOJI_VITS,
        "vit_b32.openai",
        "vit_b16.openai",
        "vit_b16.laion2b",
        "vit_b16.datacomp",
        "vit_b16.metaclip",
        "vit_b16.dfn",
        "vit_l14.openai",
        "vit_l14.laion2b",
        "vit_l14_336.openai",
        "vit_h14.laion2b",
        "rn_tiny.emoji",
        "rn50.openai",
        "rn101.openai",
        "rn50x16.openai",
    )
    protocols = {  # noqa: RUF012
        "default": DEFAULT_PROTOCOL,
        "emoji": EMOJI_PROTOCOL,
        "emoji_pairs": pairs_protocol(),
        "voc20": _paper("voc20", Resize(512), "voc20.maskclip", 41.5, 50.9, 49.5),
        "context59": _paper("context59", Resize(520, 520), "context59.maskclip", 18.5, 20.3, 21.7),
        "coco_stuff171": _paper("coco_stuff171", Resize(512), "coco_stuff171.maskclip", 10.2, 13.6, 12.5),
        "ade150": _paper("ade150", Resize(512), "ade150.cat_seg"),
        "cityscapes": _paper("cityscapes", Resize(512, 1024), "cityscapes.clip_dinoiser"),
    }

    key_smoothing: float | None = None
    ks_axis: Literal["channels", "positions"] = "channels"
    prompt_denoising: float | None = None
    attention_pooling: bool = False

    @property
    def readout(self) -> Readout:
        """The value path, with residual and MLP."""
        taps = ((-1, "k"),) if self.key_smoothing is not None else ()
        return Readout(identity, residual="own", mlp=True, pos_embed="bicubic", taps=taps)

    def read_resnet(self, tower: ModifiedResNet, image: Tensor) -> DenseFeatures:
        """The value path of the attention pool, or all of it, without positions and mean token."""
        features = tower.forward_dense(image)
        if not self.attention_pooling:
            return features
        tokens = features.taps[-1, "out"]
        with_mean = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
        attended = tower.attnpool.attend(tokens, with_mean)
        return replace(features, patches=attended.transpose(1, 2).unflatten(2, features.grid))

    def refine(self, scores: Tensor, features: DenseFeatures, tower: Any) -> Tensor:
        """Prompt denoising, then key smoothing."""
        if self.prompt_denoising is not None:
            scores = denoise_prompts(scores, self.prompt_denoising)
        if self.key_smoothing is not None:
            keys = self.smoothing_keys(features, tower)
            scores = smooth_by_keys(scores, keys, self.key_smoothing, self.ks_axis)
        return scores

    @staticmethod
    def smoothing_keys(features: DenseFeatures, tower: Any) -> Tensor:
        """(B, h * w, D) keys of the last attention; those of a ViT went through its output projection too."""
        keys = features.taps[-1, "k"]
        return keys if features.cls is None else tower.blocks[-1].attn.out_proj(keys[:, 1:])


def denoise_prompts(scores: Tensor, threshold: float) -> Tensor:
    """Rules out words that no patch is sure of (PD).

    Args:
        scores: (B, Q, h, w) cosine similarity.
        threshold: Smallest best probability over the patches, 0 to 1.
    """
    best = (_SCALE * scores).softmax(dim=1).amax(dim=(2, 3), keepdim=True)
    return scores.masked_fill(best < threshold, _RULED_OUT)


def smooth_by_keys(
    scores: Tensor, keys: Tensor, threshold: float, axis: Literal["channels", "positions"] = "channels"
) -> Tensor:
    """Patches that are not sure take the probabilities of all patches, weighted by similarity of keys (KS).

    Args:
        scores: (B, Q, h, w) cosine similarity.
        keys: (B, h * w, D).
        threshold: Patches whose best probability is below it are replaced.
        axis: What the keys are normalised over. The paper means channels.

    Returns:
        (B, Q, h, w): probabilities where a patch is sure. Elsewhere sums, as the weights do not sum to one:
        only their order means something.
    """
    probabilities = (_SCALE * scores).softmax(dim=1).flatten(2)
    unit = F.normalize(keys.float(), dim=2 if axis == "channels" else 1)
    smoothed = probabilities @ (unit @ unit.transpose(1, 2))
    unsure = probabilities.amax(dim=1, keepdim=True) < threshold
    return torch.where(unsure, smoothed, probabilities).view_as(scores)
