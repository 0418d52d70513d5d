"""CLIPtrase: Shao et al., Explore the Potential of CLIP for Training-Free OV Segmentation, ECCV 2024.

In the last block queries attend to queries, keys to keys and values to values; the three are summed. Patches
that correlate alike with all others (one block earlier, less what the class token correlates with) are
clustered, and a cluster's pixels take the label that most of them have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ovseg.dense.attention import key_key, query_query, uses, value_value
from ovseg.dense.readout import Readout
from ovseg.inference.protocol import Protocol, Resize
from ovseg.inference.steps import RegionVote, Softmax
from ovseg.methods.method import DEFAULT_PROTOCOL, EMOJI_PROTOCOL, EMOJI_VITS, Method
from ovseg.methods.sclip_protocols import protocols_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ovseg.dense.readout import AttentionContext
    from ovseg.towers.clip import CLIP

__all__ = ["CLIPtrase", "all_self"]

_VOTE = (Softmax(), RegionVote())
_TRAINED_PATCHES = 14 * 14  # of ViT-B/16 at 224 pixels, for which the authors chose 0.7 and 3


@uses("qkv")
def all_self(q: Tensor, k: Tensor, v: Tensor, ctx: AttentionContext) -> Tensor:
    """The sum of query-query, key-key and value-value attention: the weights of a token sum to 3."""
    return query_query(q, None, v, ctx) + key_key(None, k, v, ctx) + value_value(None, None, v, ctx)


_MIOU = {  # at 224 and 336 pixels, on the central square of each image
    "coco_stuff171": (22.84, 24.06),
    "voc20": (80.95, 81.20),
    "context59": (33.83, 34.92),
    "context459": (9.36, 9.95),
    "ade150": (16.35, 17.04),
    "ade847": (6.31, 5.89),
    "coco_object": (43.56, 44.84),
    "voc21": (50.88, 53.04),
    "context60": (29.87, 30.79),
}


def _paper(dataset: str, short: int) -> Protocol:
    """Whole images; at 336 pixels under the data set's name, at 224 with a suffix."""
    small = short == 224
    fields: dict[str, Any] = {"eps": 0.7, "min_samples": 3} if small else {"eps": 1.1, "min_samples": 7}
    if dataset == "voc20":
        fields["cls_weighting"] = True
    return Protocol(
        f"{dataset}_224" if small else dataset,
        Resize(short, shrink="bicubic"),
        words=f"{dataset}.cliptrase",
        steps=(RegionVote(),),
        fields=fields,
        paper={"vit_b16.openai": _MIOU[dataset][0 if small else 1]},
    )


@dataclass(frozen=True)
class CLIPtrase(Method):
    """Residual and MLP of the last block stay. Clusters need the whole image as one window.

    Attributes:
        eps: Distance of neighbours in DBSCAN; None: 0.7 on 14 x 14 patches, in proportion to the root of
            their number.
        min_samples: Neighbours of a core patch in DBSCAN; None: 3 on 14 x 14 patches, in proportion to their
            number.
        cls_weighting: Multiply each word's scores with the class token's score of it (the authors do on
            VOC20).
    """

    name = "cliptrase"
    title = "CLIPtrase"
    paper = "Shao et al., Explore the Potential of CLIP for Training-Free OV Semantic Segmentation, ECCV 2024"
    reference = "leaves162/CLIPtrase"
    code_licence = "MIT"
    towers = (
        *EMOJI_VITS,
        "vit_b32.openai",
        "vit_b16.openai",
        "vit_b16.laion2b",
        "vit_b16.datacomp",
        "vit_b16.metaclip",
        "vit_b16.dfn",
        "vit_l14.openai",
    )
    protocols = protocols_of(
        *(_paper(dataset, short) for short in (336, 224) for dataset in _MIOU),
        default=replace(
            DEFAULT_PROTOCOL,
            resize=replace(DEFAULT_PROTOCOL.resize, short=336),
            crop=None,
            stride=None,
            steps=_VOTE,
        ),
        emoji=replace(
            EMOJI_PROTOCOL,
            resize=replace(EMOJI_PROTOCOL.resize, short=224),
            crop=None,
            stride=None,
            steps=_VOTE,
        ),
    )

    eps: float | None = None
    min_samples: int | None = None
    cls_weighting: bool = False

    @property
    def readout(self) -> Readout:
        """The sum of three self-attentions; the parts of the attention before the last are kept."""
        return Readout(all_self, pos_embed="bicubic_offset", taps=((-2, "q"), (-2, "k"), (-2, "v")))

    def neighbourhood(self, patches: int) -> tuple[float, int]:
        """DBSCAN's ``eps`` and ``min_samples`` for a number of patches."""
        share = patches / _TRAINED_PATCHES
        eps = 0.7 * share**0.5 if self.eps is None else self.eps
        return eps, max(round(3 * share), 1) if self.min_samples is None else self.min_samples

    def build(self, clip: CLIP, readout: Readout) -> nn.Module:
        """The model."""
        from ovseg.methods.cliptrase.model import ClusterSegmenter

        return ClusterSegmenter(clip, self, readout)
