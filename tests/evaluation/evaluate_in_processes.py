"""Run under torchrun by test_evaluate.py: evaluates a tiny random model and writes the report."""

import sys
from dataclasses import replace
from pathlib import Path

import torch

import ovseg
from ovseg.evaluation.evaluate import evaluate
from ovseg.evaluation.loop import launch
from ovseg.evaluation.report import report, write_report
from ovseg.evaluation.sets import open_set
from ovseg.inference.protocol import Protocol, Resize
from ovseg.inference.steps import Softmax
from ovseg.towers.clip import CLIP, architecture
from ovseg.towers.table import TowerInfo
from ovseg.towers.tokenizer import Tokenizer
from ovseg.towers.weights import LoadedClip

torch.manual_seed(0)
vision = {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
text = {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
clip = CLIP(architecture({"embed_dim": 32, "vision_cfg": vision, "text_cfg": text})).eval()
loaded = LoadedClip(clip, Tokenizer(32), TowerInfo("vit_mini.random", ""))
protocol = Protocol("test", Resize(64), steps=(Softmax(),), templates="imagenet7", background="words")

launch("pytorch")
predictor = ovseg.build("maskclip", loaded, protocol=replace(protocol))
data = open_set(sys.argv[1])
found = evaluate(predictor, data, folder=Path(sys.argv[2]))
if found is not None:
    write_report(Path(sys.argv[2]), report(found, data))
torch.distributed.destroy_process_group()
