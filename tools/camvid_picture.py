"""Makes ``docs/images/camvid.png`` and ``camvid_curves.png`` from finished trainings on CamVid.

python tools/camvid_picture.py --data-root data/camvid work_dirs/semantic_fpn_camvid work_dirs/fcn_r18_camvid
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.utils import import_modules_from_strings
from mmseg.apis import inference_model, init_model
from PIL import Image, ImageDraw, ImageFont
from torch import nn

import ovseg
from ovseg._files import atomic_path
from ovseg.datasets.segmentation import CamVidDataset
from ovseg.inference.images import read_image
from ovseg.inference.render import overlay
from ovseg.training.curves import read_curves

_IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
_ROWS = 4  # test images, at equal distances in the list
_PANEL, _GAP, _LINE = (320, 240), 6, 18  # pixels
_COLOURS = 256


def curves(folders: Sequence[Path]) -> Figure:
    """Training loss, and mIoU on val, of all trainings."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for folder in folders:
        found = read_curves(folder)
        for axes, key in ((left, "loss"), (right, "mIoU")):
            share = 100 * np.asarray(found[key]["step"]) / found["loss"]["step"][-1]
            axes.plot(share, found[key]["value"], label=folder.name, marker="." * (axes is right))
    left.set(title="training loss", xlabel="percent of the training", yscale="log")
    right.set(title="mIoU on val, percent", xlabel="percent of the training")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return figure


def sheet(folders: Sequence[Path], data_root: Path) -> Image.Image:
    """A row for each photograph: itself, the truth, and what each model says."""
    files = sorted((data_root / "images" / "test").iterdir())
    files = files[len(files) // (2 * _ROWS) :: len(files) // _ROWS][:_ROWS]
    models = [_model(folder) for folder in folders]
    vocabulary = ovseg.Vocabulary.of([str(name) for name in CamVidDataset.METAINFO["classes"]])
    titles = ["test image", "truth", *(folder.name for folder in folders)]
    width, height = (size + _GAP for size in _PANEL)
    out = Image.new("RGB", (_GAP + len(titles) * width, _LINE + len(files) * height), "white")
    draw, font = ImageDraw.Draw(out), ImageFont.load_default(12)
    for column, title in enumerate(titles):
        draw.text((_GAP + column * width, 2), title, "black", font)
    for row, file in enumerate(files):
        image = read_image(file)
        truth = np.asarray(Image.open(data_root / "annotations" / "test" / f"{file.stem}.png")).astype(int)
        maps = [np.where(truth < len(vocabulary), truth, -1), *(_labels(model, file) for model in models)]
        panels = [image, *(overlay(image, labels, vocabulary, alpha=0.75, legend=False) for labels in maps)]
        for column, panel in enumerate(panels):
            picture = Image.fromarray(panel).resize(_PANEL, Image.Resampling.LANCZOS)
            out.paste(picture, (_GAP + column * width, _LINE + row * height))
    return out


def _model(folder: Path) -> nn.Module:
    """The best checkpoint of a training, as its own config builds it."""
    (config,), (checkpoint,) = folder.glob("*.py"), folder.glob("best_*.pth")
    cfg = Config.fromfile(str(config))
    import_modules_from_strings(**cfg.get("custom_imports", {"imports": ["ovseg.models"]}))
    return init_model(cfg, str(checkpoint), device="cpu")


def _labels(model: nn.Module, file: Path) -> np.ndarray:
    return inference_model(model, str(file)).pred_sem_seg.data[0].numpy()


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="WORK_DIR")
    parser.add_argument("--data-root", type=Path, required=True)
    args = parser.parse_args(argv)
    with atomic_path(_IMAGES / "camvid_curves.png") as path:
        curves(args.folders).savefig(path, format="png", dpi=80)
    with atomic_path(_IMAGES / "camvid.png") as path:
        picture = sheet(args.folders, args.data_root)
        picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(path, format="png", optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
