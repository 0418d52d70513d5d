from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from video_clips import frames_of, make_clip

from ovseg.cli.main import main

pytest.importorskip("av")


@pytest.fixture
def clip(tmp_path):
    return make_clip(tmp_path / "a.mp4", [i / 25 for i in range(6)])


def test_writes_a_video_with_a_key(predictor, clip, tmp_path, capsys):
    out = tmp_path / "out" / "b.mp4"
    assert main(["video", str(clip), "--classes", "road", "car", "--out", str(out)]) == 0
    stdout, stderr = capsys.readouterr()
    assert stdout.split() == [str(out)] and "6 frames, 0 broken" in stderr
    frames = frames_of(out)
    assert len(frames) == 6 and frames[0][1].shape[0] * frames[0][1].shape[1] > 48 * 64
    left, right = (frames[0][1][30:46, columns].mean() for columns in (slice(4, 28), slice(36, 60)))
    assert left - right > 20, "the left half is painted"


def test_labels_as_lines(predictor, clip, tmp_path, capsys):
    from pycocotools import mask

    lines = tmp_path / "labels.jsonl"
    options = ["--stride", "2", "--out", str(tmp_path / "b.mp4"), "--labels", str(lines)]
    assert main(["video", str(clip), "--classes", "road", *options]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "b.mp4"), str(lines)]
    head, *frames = map(json.loads, lines.read_text().splitlines())
    assert head["ovseg"]["vocabulary"]["classes"][0]["name"] == "road"
    assert [(line["frame"], line["time"]) for line in frames] == [(0, 0.0), (1, 0.08), (2, 0.16)]
    (segment,) = frames[2]["segments"]
    decoded = mask.decode(segment["segmentation"])
    assert segment["class"] == "road" and decoded[:, :32].all() and not decoded[:, 32:].any()


def test_labels_as_pictures(predictor, clip, tmp_path):
    folder = tmp_path / "labels"
    main(
        [
            "video",
            str(clip),
            "--classes",
            "x",
            "--end",
            "0.1",
            "--out",
            str(tmp_path / "b.mp4"),
            "--labels",
            str(folder),
        ]
    )
    assert sorted(path.name for path in folder.glob("*.png")) == [f"00000{i}.labels.png" for i in range(3)]
    assert np.asarray(Image.open(folder / "000002.labels.png"))[0, [0, -1]].tolist() == [0, 255]


def test_ctrl_c_leaves_a_playable_file(predictor, clip, tmp_path, monkeypatch, capsys):
    segment = predictor.segment
    count = iter(range(100))

    def stopped(sources, **options):
        if next(count) == 4:
            raise KeyboardInterrupt
        return segment(sources, **options)

    monkeypatch.setattr(predictor, "segment", stopped)
    out, lines = tmp_path / "b.mp4", tmp_path / "b.jsonl"
    assert main(["video", str(clip), "--classes", "x", "--out", str(out), "--labels", str(lines)]) == 130
    assert len(frames_of(out)) == 4 and len(lines.read_text().splitlines()) == 5
    stdout, stderr = capsys.readouterr()
    assert "4 frames" in stderr and stdout.split() == [str(out), str(lines)]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--audio"], "no sound"),
        (["--out", "x.avi"], ".mp4"),
        (["--labels", "x.txt"], ".jsonl"),
        (["--stride", "0"], "stride"),
        (["--smoothing", "1", "--out", "{tmp}/b.mp4"], "smoothing"),
    ],
)
def test_wrong_use(predictor, clip, tmp_path, capsys, more, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["video", str(clip), "--classes", "x", *(text.format(tmp=tmp_path) for text in more)]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_no_video(predictor, photo, tmp_path, capsys):
    for name in ("missing.mp4", "photo.txt"):
        (tmp_path / "photo.txt").write_text("no video")
        assert main(["video", str(tmp_path / name), "--classes", "x"]) == 2
        assert name in capsys.readouterr().err
    assert not predictor.opened
