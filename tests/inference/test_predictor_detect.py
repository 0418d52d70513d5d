"""``Predictor.detect`` on random towers, and its parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import ovseg
from ovseg.inference.detection import foreground_scores, region_objects, score_regions, segment_objects
from ovseg.inference.results import SegResult
from ovseg.regions.embed import embed_by_pool
from ovseg.regions.proposals import Proposals, given_proposals
from ovseg.towers.clip import CLIP, architecture
from ovseg.towers.table import TowerInfo
from ovseg.towers.tokenizer import Tokenizer
from ovseg.towers.weights import LoadedClip
from ovseg.vocab.text_bank import TextBank
from ovseg.vocab.vocabulary import Vocabulary

WORDS = Vocabulary.of(["car", "road"])


@pytest.fixture
def tiny_resnet():
    torch.manual_seed(0)
    vision = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32}
    text = {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    clip = CLIP(architecture({"embed_dim": 32, "vision_cfg": vision, "text_cfg": text})).eval()
    return LoadedClip(clip, Tokenizer(32), TowerInfo("rn_mini.random", ""))


def segmented(label_map, scores=None):
    label_map = np.array(label_map, np.int32)
    scores = np.ones(label_map.shape) if scores is None else np.array(scores)
    return SegResult(label_map, scores.astype(np.float16), WORDS)


def test_each_connected_part_is_an_object():
    label_map = np.full((20, 30), -1)
    label_map[2:8, 3:9] = 0
    label_map[10:18, 3:12] = 0
    label_map[2:12, 15:29] = 1
    scores = np.where(label_map == 1, 0.9, 0.6)
    scores[2:8, 3:9] = 0.2
    found = segment_objects(segmented(label_map, scores), threshold=0.5, least_side=2)
    assert found.boxes.tolist() == [[15, 2, 29, 12], [3, 10, 12, 18]]
    assert found.labels.tolist() == [1, 0]
    np.testing.assert_allclose(found.scores, [0.9, 0.6], atol=1e-3)
    assert (
        found.masks[1] == (np.where(label_map == 0, 1, 0) * (np.arange(20)[:, None] >= 10)).astype(bool)
    ).all()
    assert len(segment_objects(segmented(label_map, scores), 0.0, 9).labels) == 1  # the others are small
    nothing = segment_objects(segmented(np.full((4, 5), -1)), 0.1, 1)
    assert nothing.boxes.shape == (0, 4) and nothing.masks.shape == (0, 4, 5)


def test_background_wins_where_it_is_best():
    scores = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])
    torch.testing.assert_close(foreground_scores(scores, [0, 1]), torch.tensor([[0.5, 0.3], [0, 0]]))
    assert foreground_scores(scores, None) is scores


def test_one_label_for_each_place():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 50, 50]])
    found = region_objects(boxes, torch.tensor([[0.6, 0.7], [0.65, 0.1], [0.4, 0.2]]), (40, 40), 0.3)
    assert found.labels.tolist() == [1, 0] and found.boxes.tolist() == [[0, 0, 10, 10], [20, 20, 40, 40]]


def test_regions_of_a_resnet_go_through_its_pool(tiny_resnet):
    visual, batch = tiny_resnet.model.visual, torch.randn(1, 3, 64, 96)
    boxes = torch.tensor([[0.0, 0, 40, 30], [10, 10, 90, 60]])
    rows = torch.randn(3, 1, 32)
    bank = TextBank(rows, False, torch.tensor([0, 1, 1]), WORDS)
    with torch.no_grad():
        scores = score_regions(None, visual, batch, Proposals(boxes), bank, 20.0)
        regions = F.normalize(embed_by_pool(visual, visual.stage3(batch), [boxes]), dim=1)
        logits = F.pad(20 * regions @ F.normalize(rows[:, 0], dim=1).T, (0, 1))  # zero background
        p = logits.softmax(dim=1)
        with_objectness = score_regions(
            None, visual, batch, Proposals(boxes, torch.tensor([0.0, 2.0])), bank, 20.0
        )
    wanted = torch.stack([p[:, 0], p[:, 1:3].amax(dim=1)], dim=1)
    torch.testing.assert_close(scores, wanted, atol=1e-5, rtol=1e-4)
    objectness = torch.tensor([[0.0], [2.0]]).sigmoid()
    torch.testing.assert_close(with_objectness, (wanted * objectness).sqrt(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("tower", ["tiny_clip", "tiny_resnet"])
@pytest.mark.parametrize("proposals", ["segments", "grid"])
def test_detects_on_any_tower(tower, proposals, request, photo):
    predictor = ovseg.build("maskclip", request.getfixturevalue(tower))
    found = predictor.detect(photo, ["car", "road"], proposals=proposals, threshold=0.0, background="none")
    assert found.size == (70, 101) and len(found)
    assert (found.boxes >= 0).all() and found.boxes[:, 2].max() <= 101 and found.boxes[:, 3].max() <= 70
    assert (np.diff(found.scores) <= 0).all() and set(found.names) <= {"car", "road"}
    assert (found.masks is not None) == (proposals == "segments")
    if found.masks is not None:
        x1, y1, x2, y2 = found.boxes[0].astype(int)
        rows, columns = np.nonzero(found.masks[0])
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x1, y1, x2, y2)


def test_given_boxes_keep_their_place(tiny_clip, photo, tmp_path):
    boxes = np.array([[3.0, 4, 50, 60], [60, 10, 100, 69]])
    predictor = ovseg.build("maskclip", tiny_clip)
    options = {"threshold": 0.0, "background": "none"}
    found = predictor.detect(photo, ["car", "road"], proposals=boxes, **options)
    assert sorted(found.boxes.tolist()) == boxes.tolist()
    np.savez(tmp_path / "boxes.npz", boxes=boxes)
    for source in (tmp_path / "boxes.npz", given_proposals(boxes)):
        again = predictor.detect(photo, ["car", "road"], proposals=source, **options)
        np.testing.assert_array_equal(found.scores, again.scores)
    with pytest.raises(ValueError, match="give 'segments', 'grid'"):
        predictor.detect(photo, ["car"], proposals="segment")


def test_a_stream_goes_on_after_a_bad_image(tiny_clip, photo, tmp_path):
    predictor = ovseg.build("maskclip", tiny_clip)
    good, bad, last = predictor.detect([photo, tmp_path / "no.png", photo], ["car"], proposals="grid")
    assert good.image is not None and not bad and "no.png" in bad.message
    np.testing.assert_array_equal(good.boxes, last.boxes)
