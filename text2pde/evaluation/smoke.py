"""Text to smoke: a sentence says all, so what was drawn is compared frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from text2pde.evaluation.frames import cut, from_nearest
from text2pde.evaluation.sentences import Numbers, nearest
from text2pde.flows.clip import Clip
from text2pde.flows.statistics import relative_error


class SmokeSentences(NamedTuple):
    """What becomes of sentences: medians of relative errors over a clip.

    Attributes:
        drawn: of the model. shuffled: the same against the smoke of other sentences, which must be
            far. nearest: of the clip of the nearest plume of training.
        rise: the rank correlation of how high smoke was to rise and how high it did, in the mean
            over the clip.
    """

    drawn: float
    shuffled: float
    nearest: float
    rise: float


def evaluate_smoke(
    drawn: Sequence[Clip], numbers: Numbers, held_out: Sequence[Clip], training: Sequence[Clip]
) -> SmokeSentences:
    """Compare what was drawn for captions of held-out clips."""
    truths = [cut(clip, len(other.times)) for clip, other in zip(held_out, drawn, strict=True)]
    others = [*drawn[1:], drawn[0]]
    near = [from_nearest(clip, nearest(clip.flow, training, numbers)) for clip in truths]
    rises = [[_height(clip) for clip in clips] for clips in (truths, drawn)]
    return SmokeSentences(
        _median([clip.fields for clip in drawn], truths),
        _median([clip.fields for clip in others], truths),
        _median(near, truths),
        float(spearmanr(*rises).statistic),
    )


def _median(fields: Sequence[np.ndarray], truths: Sequence[Clip]) -> float:
    return float(
        np.median([relative_error(f, clip) for f, clip in zip(fields, truths, strict=True)])
    )


def _height(clip: Clip) -> float:
    """Of the smoke, in the mean."""
    shares = clip.fields[:, :, 2] * clip.mesh.node_areas
    return float((shares @ clip.mesh.nodes[:, 1]).sum() / shares.sum())
