"""Sizes of the transformer, by name."""

from __future__ import annotations

from typing import NamedTuple


class Size(NamedTuple):
    """Of a transformer."""

    width: int
    depth: int
    heads: int


PRESETS = {
    "tiny": Size(192, 6, 6),
    "base": Size(384, 12, 6),
    "small": Size(512, 24, 16),
    "medium": Size(1024, 28, 16),
    "large": Size(2304, 28, 32),
}
"""From what trains on two cores to the three sizes of the paper."""
