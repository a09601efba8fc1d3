"""Layer 0. HTML by which objects show themselves in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_ENDS = 20
"""Rows that are shown of a long table, at each of its ends."""


def html_table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table under a caption; what is between the first and the last 20 rows is left out."""
    shown = [list(map(escape, row)) for row in rows]
    if len(rows) > 2 * _ENDS:
        shown[_ENDS:-_ENDS] = [["…"] * len(head)]
    lines = [_line("th", map(escape, head)), *(_line("td", row) for row in shown)]
    return f"<table><caption>{escape(caption)}</caption>{''.join(lines)}</table>"


def _line(tag: str, values: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{value}</{tag}>" for value in values) + "</tr>"
