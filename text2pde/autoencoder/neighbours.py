"""Who is whose neighbour: all within a radius, and some nearest where there are too few."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from text2pde.mesh import Integers, Numbers


class Edges(NamedTuple):
    """Pairs of a target and one of its sources, by their numbers [E], sorted by the targets."""

    target: Integers
    source: Integers


def find_edges(targets: Numbers, sources: Numbers, radius: float, least: int) -> Edges:
    """The sources within the radius of each target, and its nearest ones up to ``least``.

    So no target is without sources, however coarse the mesh is there. Raises ValueError if there
    are fewer sources than ``least``.
    """
    if len(sources) < least:
        raise ValueError(f"{len(sources)} points are too few to have {least} neighbours each.")
    tree = cKDTree(sources)
    within = tree.query_ball_point(targets, radius, return_sorted=True)
    counts = np.array([len(found) for found in within])
    few = np.flatnonzero(counts < least)
    if len(few):
        _, nearest = tree.query(targets[few], k=least)
        for row, found in zip(few, nearest.reshape(len(few), least), strict=True):
            within[row] = sorted(found)
            counts[row] = least
    target = np.repeat(np.arange(len(targets)), counts)
    source = np.concatenate([np.asarray(found, dtype=np.int64) for found in within])
    return Edges(target.astype(np.int64), source)
