"""Writes the table of methods into README.md, from what the method files declare.

python tools/method_table.py [README.md]
"""

from __future__ import annotations

import sys
from pathlib import Path

from ovseg.methods.registry import get_method, list_methods, zoo

__all__ = ["method_table", "with_table"]

_ROOT = Path(__file__).resolve().parents[1]

_BEGIN, _END = "<!-- methods: written by tools/method_table.py -->", "<!-- end of methods -->"


def method_table() -> str:
    """A Markdown table with a row for each method."""
    lines = ["| method | name | models | paper | authors' code |", "|---|---|---|---|---|"]
    for name in list_methods():
        method = get_method(name)
        models = sum(row.method == name for row in zoo().values())
        page = f"docs/methods/{name}.md"
        title = f"[{method.title}]({page})" if (_ROOT / page).exists() else method.title
        licence = "no licence" if method.code_licence == "none" else method.code_licence
        code = f"[{method.reference}](https://github.com/{method.reference}), {licence}"
        lines.append(f"| {title} | `{name}` | {models} | {method.paper} | {code} |")
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


if __name__ == "__main__":
    path = Path(sys.argv[1] if len(sys.argv) > 1 else _ROOT / "README.md")
    path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")
