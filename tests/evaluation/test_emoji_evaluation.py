"""Evaluation on EmojiScenes: a tower that reads the truth scores near 100, one that reads nothing at chance."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from emoji_fakes import fake_drawings

from ovseg.datasets.emoji import EmojiScenes, word_table
from ovseg.dense.features import DenseFeatures
from ovseg.evaluation.emoji import EmojiEvaluation, _object_ious, evaluate_tower, evaluation_scenes
from ovseg.evaluation.objects import object_ious


@pytest.fixture(scope="module")
def drawings():
    return fake_drawings()


class ColourTower:
    """Knows each fake drawing's word by its colour: what a trained tower does, without the training."""

    stride = 4

    def __init__(self, drawings):
        self.table = word_table()
        pixels = drawings.levels[0][drawings.artists == drawings.artists[0], 16, 16, :3]
        self.colours = torch.from_numpy(pixels).float()  # (words, 3)

    @property
    def visual(self):
        return self

    def eval(self):
        return self

    def encode_text(self, tokens):
        return tokens

    def encode_image(self, image):
        return self._embed(F.adaptive_avg_pool2d(image[..., 28:36, 28:36], 1))[..., 0, 0]

    def forward_dense(self, image, readout=None):
        return DenseFeatures(self._embed(F.avg_pool2d(image, self.stride)), None, self.stride)

    def _embed(self, image):
        flat = image.permute(0, 2, 3, 1).flatten(0, 2)
        distance = torch.cdist(flat, self.colours)
        found = F.one_hot(distance.argmin(1), len(self.colours) + 13).float()
        found[distance.min(1).values > 12, :] = F.one_hot(
            torch.tensor(len(self.colours)), found.shape[1]
        ).float()
        return found.unflatten(0, (len(image), *image.shape[2:])).permute(0, 3, 1, 2)


def words_as_rows(table):
    """A tokenizer whose "embedding" of a prompt is the row of its word or texture."""
    names = [*(word.name for word in table.words), *table.textures]

    def tokenize(prompts):
        rows = [
            max((n for n in names if n in prompt.split(" of ")[-1]), key=len, default=names[0])
            for prompt in prompts
        ]
        return F.one_hot(torch.tensor([names.index(row) for row in rows]), len(names)).float()

    return tokenize


def test_a_tower_that_knows_the_drawings_scores_high(drawings):
    what = EmojiEvaluation("train", scenes=4, readouts={"own": None})
    figures = evaluate_tower(
        ColourTower(drawings),
        words_as_rows(word_table()),
        lambda x: x.permute(0, 3, 1, 2).float(),
        drawings,
        what,
    )
    assert figures["cls_top1"] > 90 and figures["pooled_top1_own"] > 90


def test_a_tower_that_sees_nothing_is_at_chance(drawings):
    blind = ColourTower(drawings)
    blind.colours = blind.colours[
        torch.randperm(len(blind.colours), generator=torch.Generator().manual_seed(0))
    ]
    what = EmojiEvaluation("train", scenes=2, readouts={"own": None})
    figures = evaluate_tower(
        blind, words_as_rows(word_table()), lambda x: x.permute(0, 3, 1, 2).float(), drawings, what
    )
    assert figures["cls_top1"] < 10 and figures["pooled_top1_own"] < 10


def test_object_iou_of_the_truth_is_one(drawings):
    scene = EmojiScenes("val", size=128, length=1, drawings=drawings)[0]
    count = len(scene.words)
    text = torch.eye(count + 13)
    labels = torch.from_numpy(np.where(scene.instances == 0, count, scene.instances.astype(int) - 1))
    patches = F.one_hot(labels, len(text)).float().permute(2, 0, 1)[None]
    assert min(_object_ious(scene, patches, text)) == 1
    assert max(_object_ious(scene, patches.flip(1), text)) < 0.2


@pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (1, 0.0)])
def test_objects_as_a_predictor_finds_them(drawings, shift, expected):
    what = EmojiEvaluation("train", ("base",), scene_size=96, scenes=3)
    scenes = evaluation_scenes(drawings, what)
    answers = iter([np.where(scene.instances > 0, scene.instances - 1, 20) + shift for scene in scenes])
    asked = []
    predictor = SimpleNamespace(
        set_vocabulary=asked.append,
        segment=lambda image, keep_image: SimpleNamespace(label_map=next(answers)),
    )
    assert set(object_ious(predictor, drawings, what)) == {expected}
    table = drawings.table
    assert [*asked[0]] == [*(table.words[i].name for i in scenes[0].words), *table.textures]
