"""The weights table: what belongs to each set of CLIP weights, readable without torch or open_clip."""

from __future__ import annotations

import difflib
import fnmatch
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

__all__ = [
    "ASSETS",
    "OPENAI_MEAN",
    "OPENAI_STD",
    "TowerInfo",
    "info_from_config",
    "list_towers",
    "tower_info",
]

ASSETS = Path(__file__).resolve().parent.parent / "assets"
"""Folder of the embedded weights: ``<name>.safetensors`` beside ``<name>.json``."""

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
_HALF = (0.5, 0.5, 0.5)
_OPENAI_URL = "https://openaipublic.azureedge.net/clip/models"
_OPEN_CLIP_URL = "https://github.com/mlfoundations/open_clip/releases/download/v0.2-weights"


@dataclass(frozen=True)
class TowerInfo:
    """What is known about a set of weights.

    Attributes:
        name: ``<tower>.<tag>``, e.g. "vit_b16.openai".
        arch: open_clip's name of the architecture, activation included ("ViT-B-16-quickgelu"); "" if it
            stands in a configuration file beside the weights.
        tag: open_clip's tag ("laion2b_s34b_b88k"), or "".
        sources: Where the file is: a URL, ``hf:<owner>/<repository>`` on the Hugging Face Hub, or a path;
            in the order in which they are tried.
        sha256: Of the file at the URL: all 64 hexadecimal digits, or the first 8 where no more is published.
        activation: ``gelu``, ``gelu_tanh`` or ``quick_gelu``: the one that the weights were trained with.
        image_size: Pixels of the trained position table.
        mean: Of the three channels, for RGB in [0, 1].
        std: As ``mean``.
        licence: Of the weights.
        background_words: Words that compete as background; None for the package's default list.
        hub_files: File names on the Hugging Face Hub, in the order in which they are tried.
        base: Name of the CLIP weights which the file completes, if it holds only what was learned on them.
    """

    name: str
    arch: str
    tag: str = ""
    sources: tuple[str, ...] = ()
    sha256: str | None = None
    activation: str = "gelu"
    image_size: int = 224
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    licence: str = "unknown"
    background_words: tuple[str, ...] | None = None
    hub_files: tuple[str, ...] = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    base: str = ""

    @property
    def source(self) -> str:
        """The first of ``sources``, or ""."""
        return self.sources[0] if self.sources else ""


def _row(
    name: str,
    arch: str,
    tag: str,
    hub: str,
    *,
    quick: bool = False,
    url: str = "",
    sha256: str | None = None,
    licence: str = "MIT",
    size: int = 224,
) -> TowerInfo:
    return TowerInfo(
        name,
        arch + "-quickgelu" * quick,
        tag,
        (url,) * bool(url) + (f"hf:{hub}",),
        sha256,
        activation="quick_gelu" if quick else "gelu",
        image_size=size,
        licence=licence,
    )


def _openai(tower: str, arch: str, sha256: str, hub: str, size: int = 224) -> TowerInfo:
    """OpenAI's own archive first: its address carries the checksum."""
    file = "ViT-L-14-336px" if arch == "ViT-L-14-336" else arch
    url = f"{_OPENAI_URL}/{sha256}/{file}.pt"
    hub = f"timm/{hub}.openai"
    return _row(f"{tower}.openai", arch, "openai", hub, quick=True, url=url, sha256=sha256, size=size)


def _release(tower: str, arch: str, file: str, hub: str, quick: bool = False) -> TowerInfo:
    """LAION-400M weights of open_clip's releases, whose name ends in the first 8 digits of the checksum."""
    tag = "laion400m_e32"
    url, sha256 = f"{_OPEN_CLIP_URL}/{file}.pt", file[-8:]
    return _row(f"{tower}.laion400m", arch, tag, f"timm/{hub}.{tag}", quick=quick, url=url, sha256=sha256)


def _laion(name: str, arch: str, training: str) -> TowerInfo:
    """LAION's repositories are named by architecture, data, samples seen and batch size."""
    tag = training.lower().replace("-", "_").replace(".", "_")
    return _row(name, arch, tag, f"laion/CLIP-{arch}-{training}")


def _metaclip(tower: str, arch: str, hub: str) -> TowerInfo:
    hub = f"timm/{hub}.metaclip_2pt5b"
    return _row(f"{tower}.metaclip", arch, "metaclip_fullcc", hub, quick=True, licence="CC-BY-NC-4.0")


def _dfn(tower: str, arch: str, tag: str, size: int = 224) -> TowerInfo:
    hub, licence = f"apple/{tag.upper()}-CLIP-{arch}", "Apple Sample Code License"
    return _row(f"{tower}.dfn", arch, tag, hub, quick=True, licence=licence, size=size)


# Sources, tags, checksums and normalisation as in open_clip 3.3's tables; licences from the model cards.
_ROWS = (
    _openai("vit_b32", "ViT-B-32", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
            "vit_base_patch32_clip_224"),
    _release("vit_b32", "ViT-B-32", "vit_b_32-quickgelu-laion400m_e32-46683a32", "vit_base_patch32_clip_224",
             quick=True),
    _laion("vit_b32.laion2b", "ViT-B-32", "laion2B-s34B-b79K"),
    _laion("vit_b32.datacomp", "ViT-B-32", "DataComp.XL-s13B-b90K"),
    _metaclip("vit_b32", "ViT-B-32", "vit_base_patch32_clip_224"),

    _openai("vit_b16", "ViT-B-16", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
            "vit_base_patch16_clip_224"),
    _release("vit_b16", "ViT-B-16", "vit_b_16-laion400m_e32-55e67d44", "vit_base_patch16_clip_224"),
    _laion("vit_b16.laion2b", "ViT-B-16", "laion2B-s34B-b88K"),
    _laion("vit_b16.datacomp", "ViT-B-16", "DataComp.XL-s13B-b90K"),
    _metaclip("vit_b16", "ViT-B-16", "vit_base_patch16_clip_224"),
    _dfn("vit_b16", "ViT-B-16", "dfn2b"),

    _openai("vit_l14", "ViT-L-14", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
            "vit_large_patch14_clip_224"),
    _release("vit_l14", "ViT-L-14", "vit_l_14-laion400m_e32-3d133497", "vit_large_patch14_clip_224"),
    replace(_laion("vit_l14.laion2b", "ViT-L-14", "laion2B-s32B-b82K"), mean=_HALF, std=_HALF),
    _laion("vit_l14.datacomp", "ViT-L-14", "DataComp.XL-s13B-b90K"),
    _metaclip("vit_l14", "ViT-L-14", "vit_large_patch14_clip_224"),
    _dfn("vit_l14", "ViT-L-14", "dfn2b"),
    _openai("vit_l14_336", "ViT-L-14-336", "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
            "vit_large_patch14_clip_336", size=336),

    _laion("vit_h14.laion2b", "ViT-H-14", "laion2B-s32B-b79K"),
    _metaclip("vit_h14", "ViT-H-14", "vit_huge_patch14_clip_224"),
    _dfn("vit_h14", "ViT-H-14", "dfn5b"),
    _dfn("vit_h14_378", "ViT-H-14-378", "dfn5b", size=378),
    _laion("vit_g14.laion2b", "ViT-g-14", "laion2B-s34B-b88K"),
    replace(_laion("vit_bigg14.laion2b", "ViT-bigG-14", "laion2B-39B-b160k"), tag="laion2b_s39b_b160k"),
    _metaclip("vit_bigg14", "ViT-bigG-14", "vit_gigantic_patch14_clip_224"),

    _openai("rn50", "RN50", "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
            "resnet50_clip"),
    _openai("rn101", "RN101", "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
            "resnet101_clip"),
    _openai("rn50x4", "RN50x4", "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd",
            "resnet50x4_clip", size=288),
    _openai("rn50x16", "RN50x16", "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa",
            "resnet50x16_clip", size=384),
    _openai("rn50x64", "RN50x64", "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c",
            "resnet50x64_clip", size=448),
)  # fmt: skip


@cache
def _table() -> dict[str, TowerInfo]:
    """Embedded weights first, then the rows above."""
    table = {}
    for weights in sorted(ASSETS.glob("*.safetensors")):
        config = weights.with_suffix(".json")
        if config.is_file():
            name = weights.stem
            table[name] = info_from_config(name, json.loads(config.read_text("utf-8")), (str(weights),))
    return table | {row.name: row for row in _ROWS}


def info_from_config(name: str, config: Mapping[str, Any], sources: Iterable[str] = ()) -> TowerInfo:
    """The facts in a configuration file of open_clip's layout.

    Args:
        name: Of the tower.
        config: ``model_cfg`` and ``preprocess_cfg`` as in an ``open_clip_config.json``; an optional ``card``
            may give ``licence`` and ``background_words``.
        sources: As in ``TowerInfo``.

    Raises:
        ValueError: There is no ``model_cfg``.
    """
    if "model_cfg" not in config:
        raise ValueError(f"the configuration of {name!r} has no 'model_cfg'; is it an open_clip_config.json?")
    model, preprocess, card = config["model_cfg"], config.get("preprocess_cfg", {}), config.get("card", {})
    size = model["vision_cfg"].get("image_size", 224)
    words = card.get("background_words")
    return TowerInfo(
        name=name,
        arch="",
        sources=tuple(sources),
        activation="quick_gelu" if model.get("quick_gelu") else "gelu",
        image_size=size if isinstance(size, int) else max(size),
        mean=tuple(preprocess.get("mean", OPENAI_MEAN)),
        std=tuple(preprocess.get("std", OPENAI_STD)),
        licence=card.get("licence", "unknown"),
        background_words=None if words is None else tuple(words),
    )


def list_towers(pattern: str = "*") -> list[str]:
    """Names of the known weights that match a shell pattern ("vit_b16.*"), in the table's order."""
    return [name for name in _table() if fnmatch.fnmatchcase(name, pattern)]


def tower_info(name: str) -> TowerInfo:
    """What is known about the weights ``<tower>.<tag>``.

    Names of the table are answered at once. Any other tag of open_clip's pretrained tables works as well
    ("vit_b16.laion400m_e31"); looking there imports open_clip, which takes seconds.

    Raises:
        ValueError: The name is unknown; near names are listed.
    """
    known = _table()
    found = known.get(name) or ("." in name and _from_open_clip(name)) or None
    if found:
        return found
    near = [row for row in known if row.startswith(f"{name}.")]
    near = near or difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    raise ValueError(f"unknown tower {name!r}; near: {', '.join(near) or 'none'} (list_towers() gives all)")


def _from_open_clip(name: str) -> TowerInfo | None:
    """The row for a tag that only open_clip's tables know."""
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained

    from ovseg.towers.clip import architecture, list_architectures

    for arch, tag in list_pretrained():
        if f"{_tower_name(arch)}.{tag}" != name or arch.endswith("-quickgelu"):
            continue
        if arch not in list_architectures():
            continue
        cfg = get_pretrained_cfg(arch, tag)
        row = _row(name, arch, tag, cfg["hf_hub"].rstrip("/"), quick=bool(cfg.get("quick_gelu")))
        size = architecture(row.arch).vision.image_size
        return replace(
            row,
            image_size=size if isinstance(size, int) else max(size),
            mean=tuple(cfg["mean"]),
            std=tuple(cfg["std"]),
            licence="unknown",
        )
    return None


def _tower_name(arch: str) -> str:
    """Our name of one of open_clip's architectures: "ViT-B-16-plus-240" gives "vit_b16_plus_240"."""
    return re.sub(r"^vit_([a-z]+)_(\d+)", r"vit_\1\2", arch.lower().replace("-", "_"))
