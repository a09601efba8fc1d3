"""Layer 0. HTML representations of objects in notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_ENDS = 20
"""The number of first and of last rows that are shown of a long table."""


def html_table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table with a caption; rows between the first and the last 20 are omitted."""
    shown = [list(map(escape, row)) for row in rows]
    if len(rows) > 2 * _ENDS:
        shown[_ENDS:-_ENDS] = [["…"] * len(head)]
    lines = [_line("th", map(escape, head)), *(_line("td", row) for row in shown)]
    return f"<table><caption>{escape(caption)}</caption>{''.join(lines)}</table>"


def _line(tag: str, values: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{value}</{tag}>" for value in values) + "</tr>"
