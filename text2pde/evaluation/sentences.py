"""Text to flow: do flows that were drawn from sentences move as those do that were solved for?

A sentence does not say at which phase its vortices are, so what is compared does not depend on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from text2pde.captions import VISCOSITY
from text2pde.channel import Flow
from text2pde.flows.clip import Clip
from text2pde.flows.statistics import STEADY, Statistics, past_cylinder, statistics
from text2pde.pipeline import Request
from text2pde.scene import Scene
from text2pde.subjects import SUBJECTS, subject_of

Numbers = Callable[[Scene], Sequence[float]]
"""Of a scene, each scaled to the range that it has in training."""

SWEEP = tuple(range(60, 156, 5))
"""Reynolds numbers that are asked for one after the other."""


class Errors(NamedTuple):
    """Of flows against those that were asked for: medians of relative errors.

    Attributes:
        frequency: of the vortices. fluctuation: of the velocity across, in the wake.
    """

    frequency: float
    fluctuation: float


class Ranks(NamedTuple):
    """Rank correlations of Reynolds numbers, asked for one after the other, with what rises with
    them in flows that are solved.

    Attributes:
        strouhal: the Strouhal number f D / U, from which a Reynolds number is read (Roshko 1954,
            NACA report 1191).
        fluctuation: of the velocity across, which a wake that fades has too little of.
    """

    strouhal: float
    fluctuation: float


class Sentences(NamedTuple):
    """What becomes of sentences.

    Attributes:
        drawn: flows of the model. shuffled: the same against flows of other sentences, which must
            fail.
        nearest: the clip of the nearest sentence of training, as it is. rescaled: the same, brought
            to the speed and the size that were asked for.
        reynolds: how those that were asked for and those that were drawn rise together.
        slip, divergence: medians, of the model's flows; solved_divergence: of those that were
            solved.
    """

    drawn: Errors
    shuffled: Errors
    nearest: Errors
    rescaled: Errors
    reynolds: Ranks
    slip: float
    divergence: float
    solved_divergence: float


def captions_of(clips: Sequence[Clip]) -> list[Request]:
    """A caption of each clip, in varied words, on its mesh."""
    return [_asked(clip.flow, clip, number) for number, clip in enumerate(clips)]


def sweep_of(clip: Clip) -> list[Request]:
    """Captions of flows in the channel of a clip, with Reynolds numbers that rise."""
    channel = past_cylinder(clip).channel
    speeds = [reynolds * VISCOSITY / channel.diameter for reynolds in SWEEP]
    flows = [Flow(channel, speed, VISCOSITY) for speed in speeds]
    return [_asked(flow, clip, number) for number, flow in enumerate(flows)]


def _asked(flow: Scene, clip: Clip, words: int) -> Request:
    return Request(flow, SUBJECTS[subject_of(flow)].caption(flow, words), clip.mesh)


def evaluate_sentences(
    drawn: Sequence[Clip],
    swept: Sequence[Clip],
    numbers: Numbers,
    held_out: Sequence[Clip],
    training: Sequence[Clip],
) -> Sentences:
    """Compare what was drawn for :func:`captions_of` held-out clips, and for :func:`sweep_of` one
    of them."""
    solved = [statistics(clip) for clip in held_out]
    found = [statistics(clip) for clip in drawn]
    near = [nearest(clip.flow, training, numbers) for clip in held_out]
    known = [statistics(clip) for clip in near]
    rescaled = [
        one._replace(frequency=one.frequency * old.flow.clock / new.flow.clock)
        for one, old, new in zip(known, near, held_out, strict=True)
    ]
    return Sentences(
        _errors(found, solved),
        _errors(found[1:] + found[:1], solved),
        _errors(known, solved),
        _errors(rescaled, solved),
        ranks(swept),
        float(np.median([one.slip for one in found])),
        float(np.median([one.divergence for one in found])),
        float(np.median([one.divergence for one in solved])),
    )


def ranks(swept: Sequence[Clip]) -> Ranks:
    """Of flows that were made for :func:`sweep_of` a clip."""
    found = [(statistics(clip), clip.flow.clock) for clip in swept]
    rising = [
        [one.frequency * clock for one, clock in found],
        [one.fluctuation for one, _ in found],
    ]
    return Ranks(*(float(spearmanr(SWEEP, values).statistic) for values in rising))


def _errors(found: Sequence[Statistics], truth: Sequence[Statistics]) -> Errors:
    """Over the flows that have vortices; NaN if none has."""
    moving = [(a, b) for a, b in zip(found, truth, strict=True) if b.fluctuation > STEADY]

    def median(name: str) -> float:
        errors = [abs(getattr(a, name) - getattr(b, name)) / getattr(b, name) for a, b in moving]
        return float(np.median(errors)) if errors else math.nan

    return Errors(median("frequency"), median("fluctuation"))


def nearest(flow: Scene, clips: Sequence[Clip], numbers: Numbers) -> Clip:
    """The clip whose numbers are nearest."""
    own = np.array(numbers(flow))
    return min(clips, key=lambda clip: float(np.abs(own - np.array(numbers(clip.flow))).sum()))
