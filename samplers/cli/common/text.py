"""Text output: aligned columns, counts with a noun, and docstrings without markup."""

from __future__ import annotations

import re
from collections.abc import Sequence


def aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows of text in columns, with a line under the first."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rule = tuple("-" * width for width in widths)
    padded = (
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        for row in (rows[0], rule, *rows[1:])
    )
    return "\n".join(line.rstrip() for line in padded)


_ROLE = re.compile(r"(?::\w+)?:\w+:`~?([^`]+)`")
_LITERAL = re.compile(r"``([^`]+)``")


def plain(docstring: str) -> str:
    """A docstring as it is read in a terminal: without reStructuredText's roles and directives.

    Equations stay in TeX.
    """
    unmarked = _LITERAL.sub(r"\1", _ROLE.sub(r"\1", docstring))
    return unmarked.replace(".. math:: ", "   ")


def counted(number: int, what: str) -> str:
    """``1 step``, ``2 steps``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def evaluations_each(nfe: Sequence[int]) -> str:
    """The network evaluations of each image: their mean and range, or the one number of all."""
    if min(nfe) == max(nfe):
        return f"{counted(nfe[0], 'network evaluation')} each"
    return f"{sum(nfe) / len(nfe):.1f} network evaluations each ({min(nfe)} to {max(nfe)})"
