"""LPOSS as its authors run it (vladan-stojnic/LPOSS); DINO's last projections are stored."""

from __future__ import annotations

import torch
from torch import Tensor

from ovseg.dense.score_field import ScoreField
from ovseg.dense.view import View
from ovseg.dense.windows import slide
from ovseg.evaluation.golden.case import Case
from ovseg.evaluation.golden.external import StoredTower
from ovseg.evaluation.golden.windows import output_size
from ovseg.inference.decision import decide
from ovseg.methods.lposs import LPOSS
from ovseg.methods.lposs.model import LPOSSSegmenter, best_words
from ovseg.towers.table import OPENAI_MEAN, OPENAI_STD
from ovseg.vocab.text_bank import TextBank
from ovseg.vocab.vocabulary import Vocabulary, VocabularyClass

__all__ = ["outputs"]


def outputs(case: Case) -> dict[str, Tensor]:
    """``patch_cos``, ``laplacian`` = I - alpha S, ``lp`` after propagation, ``masks`` = scores of classes."""
    method, image = _method(case), case.tensor("image01")[:1]  # their code looks at the first image only
    model, bank = LPOSSSegmenter(case.clip(), method, method.readout), _bank(case)
    windows = slide((image.shape[2], image.shape[3]), case.hp.get("crop") or None, case.hp.get("stride"))
    view = View(image[0], windows, output_size(case), OPENAI_MEAN, OPENAI_STD, batch_size=4)
    patches = model.patches(view, bank)
    identity = torch.eye(len(patches.features))
    if case.hp.get("crop") or method.pixel_refine:
        field = model.score_field(view, bank)
    else:  # their code for whole images brings patches to the size of the result at once
        scores = best_words(model(view.normalise(image), bank)[0], bank)
        field = ScoreField.from_windows(scores[None], slide(output_size(case)))
    labels = decide(field, (), bank.vocabulary, class_scores=True)
    assert labels.class_scores is not None
    return {
        "patch_cos": patches.scores,
        "laplacian": identity - method.alpha * model.graph(patches)(identity),
        "lp": model.spread(patches),
        "masks": labels.class_scores[None],
    }


def _method(case: Case) -> LPOSS:
    hp, image = case.hp, case.tensor("image01")
    qkv, patch, site = case.tensor("ext_dino_qkv"), hp["dino_patch"], hp["enc_type_feats"]
    qkv = qkv if hp.get("crop") else qkv[:1]
    sides = [hp["crop"]] * 2 if hp.get("crop") else image.shape[2:]
    h, w = (-(-min(side, own) // patch) for side, own in zip(sides, image.shape[2:]))
    taps = {(-1, name): part for name, part in zip("qkv", qkv.chunk(3, dim=2))}
    features = taps[-1, site][:, 1:].transpose(1, 2).unflatten(2, (h, w))
    return LPOSS(
        StoredTower(features, taps, patch),
        site=site,
        neighbours=hp["k"],
        gamma=hp["gamma"],
        sigma=hp["sigma"],
        distance_power=hp["pix_dist_pow"],
        alpha=hp["alpha"],
        pixel_refine=hp["pixel_refine"],
        pixel_window=hp["r"],
        tau=hp["tau"],
        merge_words_first=True,
    )


def _bank(case: Case) -> TextBank:
    """The first ``n_bg`` words are those of class 0."""
    rows, extra = case.tensor("text"), case.hp.get("n_bg", 1) - 1
    index = [max(word - extra, 0) for word in range(len(rows))]
    words: list[list[str]] = [[] for _ in range(len(rows) - extra)]
    for word, k in enumerate(index):
        words[k].append(f"word {word}")
    classes = tuple(VocabularyClass(f"class {k}", tuple(own)) for k, own in enumerate(words))
    return TextBank(rows[:, None], True, torch.tensor(index), Vocabulary(classes))
