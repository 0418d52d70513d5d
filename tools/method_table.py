"""Writes the tables of methods into README.md and docs/methods/index.md, from what the method files declare.

python tools/method_table.py
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from ovseg.inference.protocol import Protocol
from ovseg.inference.steps import Step, step_to_dict
from ovseg.methods.method import Method
from ovseg.methods.registry import get_method, list_methods, zoo

__all__ = ["comparison", "method_table", "with_table"]

_ROOT = Path(__file__).resolve().parents[1]
_README, _COMPARISON = _ROOT / "README.md", _ROOT / "docs" / "methods" / "index.md"

_BEGIN, _END = "<!-- methods: written by tools/method_table.py -->", "<!-- end of methods -->"
_RESIDUAL = {"own": "kept", "cls": "class token's", "none": "dropped"}
_STREAM = {"inplace": "", "parallel": ", summed", "accumulate": ", in a second stream"}
_OTHER_NETWORKS = ("auxiliary", "sam")
_HEAD = """# Methods

Written by `python tools/method_table.py` from what the files in `ovseg/methods/` declare.

## What differs

How the last block (or blocks) of a ViT is run to get features per patch, and what a method can be told. Every
setting is an argument of `ovseg.build`, with its default here.
"""
_OWN = ("default", "emoji", "emoji_pairs")  # of no paper
_PROTOCOLS = """
## Protocols

What published numbers depend on besides the weights. `ovseg.load(name, protocol="voc21")` takes one; without,
settings for your own images hold. Lengths are pixels, columns of towers published mIoU in percent. The
first value of a softmax is the factor on the scores; `own` is the one that was learned with the weights.
"""


def method_table() -> str:
    """A Markdown table with a row for each method."""
    lines = ["| method | name | models | paper | authors' code |", "|---|---|---|---|---|"]
    for name in list_methods():
        method = get_method(name)
        models = sum(row.method == name for row in zoo().values())
        licence = "no licence" if method.code_licence == "none" else method.code_licence
        code = f"[{method.reference}](https://github.com/{method.reference}), {licence}"
        lines.append(f"| {_title(method, 'docs/methods/')} | `{name}` | {models} | {method.paper} | {code} |")
    return "\n".join(lines)


def with_table(text: str) -> str:
    """``text`` with the table between its two marks brought up to date.

    Raises:
        ValueError: The marks are not there.
    """
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(
            f"the lines {_BEGIN!r} and {_END!r} are missing; put them where the table shall stand"
        )
    return f"{before}{_BEGIN}\n{method_table()}\n{_END}{after}"


def comparison() -> str:
    """The page that compares the methods: their readouts and settings, then their protocols."""
    columns = "method", "attention", "residual", "MLP", "blocks", "positions", "other networks", "settings"
    lines = [_HEAD, _row(columns), _row("---" for _ in columns)]
    methods = [get_method(name) for name in list_methods()]
    lines += [_row(_difference(method)) for method in methods]
    lines.append(_PROTOCOLS)
    for method in methods:
        papers = [p for name, p in method.protocols.items() if name not in _OWN]
        if papers:
            lines += [f"### {method.title}\n", _protocol_table(papers), ""]
    return "\n".join(lines).rstrip() + "\n"


def _title(method: type[Method], folder: str = "") -> str:
    there = (_COMPARISON.parent / f"{method.name}.md").exists()
    return f"[{method.title}]({folder}{method.name}.md)" if there else method.title


def _difference(method: type[Method]) -> tuple[str, ...]:
    readout = method().readout
    attention = readout.attention
    function = getattr(attention, "__name__", type(attention).__name__)
    meaning = " ".join((attention.__doc__ or "").split("\n\n")[0].split()).rstrip(".")
    defaults = {f.name: f.default for f in fields(method)}  # type: ignore[arg-type]
    return (
        _title(method),
        f"`{function}`: {meaning}",
        _RESIDUAL[readout.residual],
        "kept" if readout.mlp else "dropped",
        f"last {readout.last_blocks if readout.last_blocks > 1 else 'one'}"
        + (_STREAM[readout.stream] if readout.last_blocks > 1 else ""),
        readout.pos_embed,
        ", ".join(f"`{defaults[name]}`" for name in _OTHER_NETWORKS if name in defaults),
        ", ".join(
            f"`{name}={value!r}`" if value is not MISSING else f"`{name}`"
            for name, value in defaults.items()
            if name not in _OTHER_NETWORKS
        ),
    )


def _protocol_table(protocols: list[Protocol]) -> str:
    towers = sorted({tower for protocol in protocols for tower in protocol.paper})
    columns = (
        "protocol",
        "short side",
        "window / step",
        "padding",
        "templates",
        "words",
        "decision",
        "settings",
    )
    lines = [_row((*columns, *(f"`{tower}`" for tower in towers)))]
    lines.append(_row("---" for _ in range(len(columns) + len(towers))))
    for p in protocols:
        settings = ", ".join(f"`{name}={value!r}`" for name, value in p.fields.items())
        if p.normalisation == "imagenet":
            settings += ", ImageNet mean" if settings else "ImageNet mean"
        miou = (f"{p.paper[tower]:g}" if tower in p.paper else "" for tower in towers)
        lines.append(
            _row(
                (
                    f"`{p.name}`", _resize(p), f"{p.crop} / {p.stride or p.crop}" if p.crop else "whole",
                    f"to {p.pad.multiple}, {p.pad.side}" if p.pad else "", _templates(p), p.words or "",
                    " → ".join(map(_step, p.steps)), settings, *miou,
                )
            )
        )  # fmt: skip
    return "\n".join(lines)


def _templates(protocol: Protocol) -> str:
    """The name of the set, or how many there are."""
    return (
        protocol.templates if isinstance(protocol.templates, str) else f"{len(protocol.templates)} of its own"
    )


def _resize(protocol: Protocol) -> str:
    resize = protocol.resize
    text = f"{resize.short}" if resize.keep_ratio else f"both {resize.short}"
    if resize.keep_ratio and resize.long != type(resize).long:
        text += f", long {resize.long}"
    return text if resize.shrink == "linear" else f"{text}, {resize.shrink}"


def _step(step: Step) -> str:
    """A step as a call: its name and its values in order."""
    data = step_to_dict(step)
    name = data.pop("step")
    values = ["own" if value is None else _value(value) for value in data.values()]
    return f"{name}({', '.join(values)})"


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Brings both files up to date."""
    _README.write_text(with_table(_README.read_text(encoding="utf-8")), encoding="utf-8")
    _COMPARISON.write_text(comparison(), encoding="utf-8")


if __name__ == "__main__":
    main()
