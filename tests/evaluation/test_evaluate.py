"""Evaluations: what they add up to, that they go on, what they leave out, and that processes share them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("mmseg")

import ovseg
from ovseg.evaluation.evaluate import evaluate
from ovseg.evaluation.miou import ClassAreas
from ovseg.evaluation.protocols import choose_protocol, published
from ovseg.evaluation.records import ImageRecord, RecordFile, read_records
from ovseg.evaluation.report import image_mean, report, to_markdown, write_report
from ovseg.evaluation.sets import open_set
from ovseg.inference.protocol import Protocol, Resize
from ovseg.inference.steps import Floor, Softmax
from ovseg.methods.registry import zoo_row
from ovseg.vocab.vocabulary import Vocabulary

PROTOCOL = Protocol("test", Resize(64), steps=(Softmax(),))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Five images of two classes, one of them unreadable, one pixel column left out."""
    rng = np.random.default_rng(3)
    root = tmp_path / "scenes"
    for name in "abcde":
        for kind in ("images", "masks"):
            (root / kind).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (8, 10, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(pixels).save(root / f"images/{name}.png")
        labels = rng.integers(0, 3, (64, 80)).astype(np.uint8)
        labels[:, 0] = 255
        Image.fromarray(labels).save(root / f"masks/{name}.png")
    (root / "classes.txt").write_text("cat\ndog\n!stuff: wall | sky\n")
    return root


@pytest.fixture
def predictor(tiny_clip):
    protocol = replace(PROTOCOL, templates="imagenet7", background="words")
    return ovseg.build("maskclip", tiny_clip, protocol=protocol)


def test_sum_over_images(folder, predictor):
    data = open_set(str(folder))
    found = evaluate(predictor, data)
    plain = Vocabulary.of(["cat", "dog", "stuff: wall | sky"])
    naive = ClassAreas.zeros(3)
    for index in range(5):
        labels = predictor.segment(data.image(index), plain, background="none").label_map
        naive = naive + ClassAreas.count(labels, data.truth(index), 3)
    assert (found.areas.intersection == naive.intersection).all()
    assert (found.areas.predicted == naive.predicted).all()
    assert found.areas.labelled.sum() == 5 * 64 * 79
    assert found.calibration.pixels.sum() == 5 * 64 * 79


def test_background_of_a_protocol_keeps_its_place(folder, tiny_clip):
    """Where the steps decide on background, unsure pixels take its label."""
    steps = (Softmax(), Floor(1.1, label=2))
    sure = ovseg.build("maskclip", tiny_clip, protocol=replace(PROTOCOL, templates="imagenet7", steps=steps))
    found = evaluate(sure, open_set(str(folder)))
    assert found.areas.predicted.tolist() == [0, 0, 5 * 64 * 79]


def test_unreadable_files_are_left_out_and_named(folder, predictor):
    (folder / "images/b.png").write_bytes(b"no image")
    (folder / "masks/d.png").write_bytes(b"no labels")
    Image.new("L", (7, 7)).save(folder / "masks/e.png")
    found = evaluate(predictor, open_set(str(folder)))
    reasons = {Path(record.name).name: record.error for record in found.failures}
    assert set(reasons) == {"b.png", "d.png", "e.png"}
    assert "cannot be read as a label map" in reasons["d.png"]
    assert "do not belong together" in reasons["e.png"]
    assert found.areas.labelled.sum() == 2 * 64 * 79


def test_goes_on_after_a_kill(folder, predictor, tmp_path):
    whole = evaluate(predictor, open_set(str(folder)), folder=tmp_path / "a")
    out = tmp_path / "b"
    evaluate(predictor, open_set(str(folder)), folder=out)
    path = out / "records.0.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]) + lines[3][: len(lines[3]) // 2])  # killed while it wrote
    seen = []
    segment = predictor.segment
    predictor.segment = lambda source, *a, **k: seen.append(Path(source).name) or segment(source, *a, **k)
    again = evaluate(predictor, open_set(str(folder)), folder=out)
    assert seen == ["c.png", "d.png", "e.png"]
    assert [r.to_dict() | {"seconds": 0} for r in again.records] == [
        r.to_dict() | {"seconds": 0} for r in whole.records
    ]


def test_failed_images_are_tried_again(folder, predictor, tmp_path):
    image = (folder / "images/b.png").read_bytes()
    (folder / "images/b.png").write_bytes(b"")
    assert evaluate(predictor, open_set(str(folder)), folder=tmp_path / "out").failures
    (folder / "images/b.png").write_bytes(image)
    assert not evaluate(predictor, open_set(str(folder)), folder=tmp_path / "out").failures


def test_other_settings_do_not_mix(folder, predictor, tiny_clip, tmp_path):
    evaluate(predictor, open_set(str(folder)), folder=tmp_path / "out")
    with pytest.raises(ValueError, match=r"another evaluation \(limit was None, is 2\).*--out"):
        evaluate(predictor, open_set(str(folder)), folder=tmp_path / "out", limit=2)
    with torch.no_grad():
        tiny_clip.model.visual.proj.add_(1)
    with pytest.raises(ValueError, match="weights was"):
        evaluate(predictor, open_set(str(folder)), folder=tmp_path / "out")


def test_limit_spreads(folder, predictor):
    assert [r.index for r in evaluate(predictor, open_set(str(folder)), limit=2).records] == [0, 2]


def test_only_present_classes_are_asked_for(folder, predictor):
    labels = np.ones((64, 80), np.uint8)  # dogs only
    for name in "abcde":
        Image.fromarray(labels).save(folder / f"masks/{name}.png")
    found = evaluate(predictor, open_set(str(folder)), present_only=True)
    assert found.areas.mean_iou() == 1


def test_background_that_stands_last_in_a_list(tmp_path):
    from ovseg.evaluation.sets import _order

    classes = ["background", "cat", "dog"]
    assert _order(Vocabulary.of(["cat", "dog", "!background"]), classes, "x") == (1, 2, 0)
    assert _order(Vocabulary.of(["!background", "cat", "dog"]), classes, "x") == (0, 1, 2)
    assert len(set(_order(Vocabulary.of("voc20b"), ["background", *"abcdefghijklmnopqrst"], "voc20b"))) == 21


def test_records_survive_json():
    rng = np.random.default_rng(0)
    predicted, truth = rng.integers(-1, 900, (2, 40, 50))
    record = ImageRecord.count(4, "x", predicted, truth, 900, rng.random((40, 50)), 0.5)
    back = ImageRecord.from_dict(json.loads(json.dumps(record.to_dict())), 900)
    assert back.to_dict() == record.to_dict()
    assert (back.areas.intersection == record.areas.intersection).all()
    assert back.calibration.error == record.calibration.error


def test_record_file_starts_with_its_settings(tmp_path):
    def parse(data):
        return ImageRecord.from_dict(data, 5)

    with RecordFile(tmp_path / "records.0.jsonl", {"a": (1, 2)}) as file:
        file.add(ImageRecord(3, "x", error="broken"))
    assert read_records(tmp_path, {"a": (1, 2)}, parse) == {}
    with pytest.raises(ValueError, match="a was"):
        read_records(tmp_path, {"a": 0}, parse)


def test_report(folder, predictor, tmp_path):
    (folder / "images/b.png").write_bytes(b"no image")
    data = open_set(str(folder), novel=["dog"])
    found = evaluate(predictor, data)
    summary = report(found, data, paper=33.3)
    iou = 100 * found.areas.iou
    assert summary["miou"] == pytest.approx(iou.mean(), abs=1e-3)
    base, novel = (iou[0] + iou[2]) / 2, iou[1]
    assert summary["groups"]["harmonic_mean"] == pytest.approx(
        2 * base * novel / (base + novel) if base * novel else 0, abs=2e-3
    )
    for path in write_report(tmp_path / "out", summary):
        assert path.is_file()
    text = to_markdown(json.loads((tmp_path / "out/report.json").read_text()))
    for piece in ("published mIoU | 33.30", "1 images left out", "b.png", "| dog |", "torch"):
        assert piece in text


def test_interval_over_images(folder, predictor):
    found = evaluate(predictor, open_set(str(folder)))
    values = np.array([record.areas.mean_iou_of_labelled() for record in found.records])
    mean, half = image_mean(found)
    assert mean == pytest.approx(values.mean())
    assert half == pytest.approx(1.96 * np.sqrt(((values - values.mean()) ** 2).sum() / 4 / 5))


def test_protocols():
    row = zoo_row("maskclip_vit_b16.openai")
    assert choose_protocol(row.method, row.protocol, "voc20").name == "voc20"
    assert choose_protocol(row.method, row.protocol, "camvid").name == "default"
    theirs = choose_protocol(row.method, row.protocol, "ade150", "sclip")
    assert (theirs.name, theirs.crop) == ("sclip.ade150", 224)
    assert theirs.paper == {}
    with pytest.raises(ValueError, match="no protocol for camvid"):
        choose_protocol(row.method, row.protocol, "camvid", "sclip")
    with pytest.raises(ValueError, match="no protocol 'nonsense'"):
        choose_protocol(row.method, row.protocol, "camvid", "nonsense")


def test_published_figure_only_under_the_published_protocol():
    row = zoo_row("maskclip_vit_b16.openai")
    assert published(row, "voc20", choose_protocol(row.method, row.protocol, "voc20")) == 49.5
    assert published(row, "voc20", choose_protocol(row.method, row.protocol, "voc20"), "voc20.sclip") is None
    assert published(row, "voc20", choose_protocol(row.method, row.protocol, "voc20", "sclip")) is None
    assert published(row, "ade150", choose_protocol(row.method, row.protocol, "voc20")) is None


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(folder, tmp_path):
    script = Path(__file__).with_name("evaluate_in_processes.py")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OVSEG_CACHE": str(tmp_path / "cache")}
    reports = []
    for processes in (1, 2):
        out = tmp_path / f"{processes}"
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        port = ["--master-port", str(29000 + os.getpid() % 1000 + processes)]
        subprocess.run([*launcher, *port, str(script), str(folder), str(out)], env=env, check=True)
        reports.append(json.loads((out / "report.json").read_text()))
    changing = {"seconds_per_image", "peak_memory_mb"}
    assert {k: v for k, v in reports[0].items() if k not in changing} == {
        k: v for k, v in reports[1].items() if k not in changing
    }
    assert (tmp_path / "2/records.1.jsonl").is_file()
