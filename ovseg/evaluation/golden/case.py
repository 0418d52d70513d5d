"""Reading a case file, building its tower, comparing outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ovseg.towers.clip import CLIP, CLIPConfig
from ovseg.towers.clip_resnet import ResNetConfig
from ovseg.towers.clip_vit import ViTConfig
from ovseg.towers.layers import Activation, BlockConfig
from ovseg.towers.text import TextConfig
from ovseg.vocab.text_bank import TextBank
from ovseg.vocab.vocabulary import Vocabulary, VocabularyClass

__all__ = ["Case", "Check", "compare"]

_ACTIVATIONS: Mapping[str, Activation] = {"gelu": "gelu", "quickgelu": "quick_gelu"}


@dataclass(frozen=True)
class Check:
    """One compared quantity.

    Attributes:
        method: Folder.
        case: File name without its suffix.
        quantity: Name of the output.
        difference: Largest absolute difference; NaN where there is nothing to compare.
        tolerance: Largest difference that passes.
        problem: Why nothing could be compared, or "".
    """

    method: str
    case: str
    quantity: str
    difference: float
    tolerance: float
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether the quantity agrees."""
        return not self.problem and self.difference <= self.tolerance

    def line(self) -> str:
        """For the terminal."""
        verdict = "ok" if self.ok else f"MISS {self.problem}".rstrip()
        numbers = f"{self.difference:10.2e} {self.tolerance:10.2e}"
        return f"{self.method:<18} {self.case:<28} {self.quantity:<20} {numbers}  {verdict}"


@dataclass(frozen=True)
class Case:
    """A golden case.

    Attributes:
        method: Folder.
        name: File name without its suffix.
        arrays: Everything in the file but ``meta``.
        meta: See the README of the golden vectors.
    """

    method: str
    name: str
    arrays: Mapping[str, np.ndarray]
    meta: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Case:
        """Reads an ``.npz``; pickled arrays are refused.

        Raises:
            ValueError: The file is no case.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
            meta = json.loads(str(arrays.pop("meta")))
        except Exception as error:  # whatever zipfile, numpy and json raise on a damaged file
            raise ValueError(f"{path} is no readable case ({type(error).__name__}: {error})") from error
        return cls(path.parent.name, path.stem, arrays, meta)

    def tensor(self, key: str) -> Tensor:
        """An array of the case."""
        return torch.from_numpy(self.arrays[key])

    @cached_property
    def hp(self) -> Mapping[str, Any]:
        """Hyper-parameters of the method."""
        return self.meta["hp"]

    def clip(self, **vision: Any) -> CLIP:
        """The case's visual tower with its weights, beside an empty text tower.

        Args:
            **vision: Changes of the configuration, see ``CLIPConfig.with_vision``.
        """
        arch = self.meta["arch"]
        dim = arch["embed_dim"]
        text = TextConfig(BlockConfig(8, 0, 1, 8), vocab_size=1, context_length=1, output_dim=dim)
        config = CLIPConfig(_vision_config(arch), text)
        model = CLIP(config.with_vision(**vision) if vision else config)
        prefix = "sd/visual."
        weights = {k[len(prefix) :]: self.tensor(k) for k in self.arrays if k.startswith(prefix)}
        model.visual.load_state_dict(weights)
        return model.eval()

    def bank(self, key: str = "text") -> TextBank:
        """The stored text embeddings: one word per class, or as ``query_idx`` says; class 0 is background.

        Rows under ``text_bg`` are words of one more class.
        """
        rows = self.tensor(key)
        index = [int(k) for k in self.hp.get("query_idx", range(len(rows)))]
        if "text_bg" in self.arrays:
            more = self.tensor("text_bg")
            rows, index = torch.cat([rows, more]), index + [max(index) + 1] * len(more)
        words: list[list[str]] = [[] for _ in range(max(index) + 1)]
        for word, k in enumerate(index):
            words[k].append(f"word {word}")
        classes = (VocabularyClass(f"class {k}", tuple(own), k == 0) for k, own in enumerate(words))
        return TextBank(rows[:, None], True, torch.tensor(index), Vocabulary(tuple(classes)))


def _vision_config(arch: Mapping[str, Any]) -> ViTConfig | ResNetConfig:
    size, dim = arch["image_size"], arch["embed_dim"]
    if isinstance(arch["layers"], list):
        return ResNetConfig(tuple(arch["layers"]), arch["width"], arch["heads"], size, dim)
    width = arch["width"]
    blocks = BlockConfig(width, arch["layers"], arch["heads"], 4 * width, _ACTIVATIONS[arch["act"]])
    return ViTConfig(blocks, arch["patch"], (size, size), dim)


def compare(case: Case, quantity: str, ours: Tensor | None, undecided: Tensor | None = None) -> Check:
    """Compares one output under the rule of the golden vectors.

    Floating point: ``max |ours - golden| <= max(2e-5 * absmax, 20 * (their float32 against their float64))``.
    Integers: exact, but for those that are ``undecided``: labels whose best two scores lie within 1e-5.
    """

    def result(difference: float, tolerance: float, problem: str = "") -> Check:
        return Check(case.method, case.name, quantity, difference, tolerance, problem)

    golden = case.tensor(quantity)
    if ours is None:
        return result(np.nan, np.nan, "not computed")
    if ours.shape != golden.shape:
        return result(np.nan, np.nan, f"shape {tuple(ours.shape)} instead of {tuple(golden.shape)}")
    if not golden.is_floating_point():
        wrong = (ours.long() - golden.long()).abs()
        if undecided is not None:
            wrong = wrong.masked_fill(undecided, 0)
        return result(float(wrong.max()), 0.0)
    gap = (ours.double() - golden.double()).abs()
    gap = gap.masked_fill(ours.isnan() & golden.isnan(), 0)
    return result(float(gap.max()) if gap.numel() else 0.0, _tolerance(case.meta, quantity, golden))


def _tolerance(meta: Mapping[str, Any], quantity: str, golden: Tensor) -> float:
    """Trained methods state the noise of gradients and losses less closely, hence their wider share."""
    size = float(golden.nan_to_num().abs().max()) if golden.numel() else 0.0
    trained = meta.get("f32_vs_f64", {}).get(quantity, {})
    size = trained.get("absmax", meta.get("absmax", {}).get(quantity, size))
    noise = trained.get("max_abs", meta.get("f64_maxabs", {}).get(quantity, 0.0))
    share = 1e-3 if quantity.startswith("grad") else 1e-4 if "loss" in quantity else 2e-5
    return max(share * size, 20 * noise)
