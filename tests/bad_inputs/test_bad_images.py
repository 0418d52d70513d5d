"""Damaged pictures: read, or refused by name; neighbours unharmed, no half file."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from bad_images import IMAGES, encoded

from ovseg.cli.main import main
from ovseg.inference.images import ImageError, read_image


@pytest.mark.parametrize("name", IMAGES, ids=repr)
def test_image_is_read_or_refused_by_name(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(IMAGES[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = read_image(path)
        except ImageError as error:
            assert name in str(error)
        else:
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size


def test_the_whole_corpus_in_one_folder_harms_no_neighbour(predictor, tmp_path, capsys):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name, data in IMAGES.items():
        (folder / name).write_bytes(data)
    for name in ("a_good.png", "m_good.png", "z_good.png"):
        (folder / name).write_bytes(encoded("png"))
    arguments = ["--classes", "x", "--format", "png", "--out", str(out)]
    assert main(["segment", str(folder), *arguments]) == 1
    stdout, stderr = capsys.readouterr()
    for name in ("a_good", "m_good", "z_good"):
        assert f"{name}.png.labels.png" in stdout
    assert "Traceback" not in stderr
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()][1:]
    assert len(lines) >= len(IMAGES) - 40  # .ppm and .tga too; names that are outputs' own are not looked at
    failed = {line["file"] for line in lines if "error" in line}
    assert {"empty.jpg", "text.jpg", "huge.png"} <= failed and len(failed) > 60
    for name in failed:
        assert not list(out.glob(f"{name}.labels.*")), name
    assert not list(out.rglob(".ovseg-*")), "a half-written file was left"
