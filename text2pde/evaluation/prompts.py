"""Text to solution: what is generated from prompts, against solutions of the same scenes.

A prompt about a flow past a cylinder does not determine the phase of its vortices, so only
statistics that do not depend on it are compared. A prompt about smoke determines everything, so
that clips are compared frame by frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from text2pde.data.clip import Clip
from text2pde.data.statistics import (
    STEADY,
    WakeStatistics,
    cylinder_flow_of,
    relative_error,
    wake_statistics,
)
from text2pde.evaluation.baselines import ScaleParameters, in_phase, nearest_clip
from text2pde.pipeline import Request
from text2pde.subject import Scene, caption
from text2pde.subject.cylinder.captions import VISCOSITY
from text2pde.subject.cylinder.channel import CylinderFlow

SWEEP = tuple(range(60, 156, 5))
"""Reynolds numbers of :func:`sweep_requests`."""


def caption_requests(clips: Sequence[Clip]) -> list[Request]:
    """A caption of each clip, in varied words, on its mesh."""
    return [_request(clip.scene, clip, seed) for seed, clip in enumerate(clips)]


def sweep_requests(clip: Clip) -> list[Request]:
    """Captions of flows in the channel of a clip, with ascending Reynolds numbers."""
    channel = cylinder_flow_of(clip).channel
    speeds = [reynolds * VISCOSITY / channel.diameter for reynolds in SWEEP]
    flows = [CylinderFlow(channel, speed, VISCOSITY) for speed in speeds]
    return [_request(flow, clip, seed) for seed, flow in enumerate(flows)]


def _request(scene: Scene, clip: Clip, seed: int) -> Request:
    return Request(scene, caption(scene, seed), clip.mesh)


# ------------------------------------------------------------------------ flows past a cylinder


class WakeErrors(NamedTuple):
    """Medians of relative errors over flows.

    Attributes:
        frequency: of vortex shedding.
        fluctuation: rms of the transverse velocity fluctuation in the wake.
    """

    frequency: float
    fluctuation: float


class SweepRanks(NamedTuple):
    """Rank correlations with the Reynolds numbers of a sweep.

    Attributes:
        strouhal: of the Strouhal number f D / U (Roshko 1954, NACA report 1191).
        fluctuation: of the transverse velocity fluctuation; too low if some wakes decay.
    """

    strouhal: float
    fluctuation: float


class CylinderEvaluation(NamedTuple):
    """What is generated from prompts about flows past a cylinder.

    Attributes:
        generated: errors of the model.
        shuffled: errors of the model against the scenes of other prompts, which must be large.
        nearest: errors of the training clip with the nearest parameters.
        rescaled: the same with its frequency rescaled by U / D.
        ranks: of a sweep over Reynolds numbers.
        slip, divergence: medians over generated clips, see
            :class:`~text2pde.data.statistics.WakeStatistics`.
        solved_divergence: median over solved clips.
    """

    generated: WakeErrors
    shuffled: WakeErrors
    nearest: WakeErrors
    rescaled: WakeErrors
    ranks: SweepRanks
    slip: float
    divergence: float
    solved_divergence: float


def evaluate_cylinder(
    generated: Sequence[Clip],
    sweep: Sequence[Clip],
    scaled: ScaleParameters,
    held_out: Sequence[Clip],
    training: Sequence[Clip],
) -> CylinderEvaluation:
    """Compare clips of flows past a cylinder.

    Args:
        generated: for :func:`caption_requests` of the held-out clips.
        sweep: for :func:`sweep_requests` of one of them.
        scaled: parameters of a scene, scaled to their ranges in training.
    """
    solved = [wake_statistics(clip) for clip in held_out]
    found = [wake_statistics(clip) for clip in generated]
    near = [nearest_clip(clip.scene, training, scaled) for clip in held_out]
    known = [wake_statistics(clip) for clip in near]
    rescaled = [
        one._replace(frequency=one.frequency * old.scene.time_unit / new.scene.time_unit)
        for one, old, new in zip(known, near, held_out, strict=True)
    ]
    return CylinderEvaluation(
        _wake_errors(found, solved),
        _wake_errors(found[1:] + found[:1], solved),
        _wake_errors(known, solved),
        _wake_errors(rescaled, solved),
        sweep_ranks(sweep),
        float(np.median([one.slip for one in found])),
        float(np.median([one.divergence for one in found])),
        float(np.median([one.divergence for one in solved])),
    )


def sweep_ranks(sweep: Sequence[Clip]) -> SweepRanks:
    """Of clips that were generated for :func:`sweep_requests`."""
    found = [(wake_statistics(clip), clip.scene.time_unit) for clip in sweep]
    ascending = [
        [one.frequency * time_unit for one, time_unit in found],
        [one.fluctuation for one, _ in found],
    ]
    return SweepRanks(*(float(spearmanr(SWEEP, values).statistic) for values in ascending))


def _wake_errors(found: Sequence[WakeStatistics], truth: Sequence[WakeStatistics]) -> WakeErrors:
    """Over the flows with vortex shedding; NaN if there are none."""
    shedding = [(a, b) for a, b in zip(found, truth, strict=True) if b.fluctuation > STEADY]

    def median(name: str) -> float:
        errors = [abs(getattr(a, name) - getattr(b, name)) / getattr(b, name) for a, b in shedding]
        return float(np.median(errors)) if errors else math.nan

    return WakeErrors(median("frequency"), median("fluctuation"))


# --------------------------------------------------------------------------------- rising smoke


class SmokeEvaluation(NamedTuple):
    """What is generated from prompts about smoke: medians of relative errors over a clip.

    Attributes:
        generated: of the model.
        shuffled: of the model against the scenes of other prompts, which must be large.
        nearest: of the training clip with the nearest parameters.
        rise: rank correlation of the mean heights of generated and solved smoke.
    """

    generated: float
    shuffled: float
    nearest: float
    rise: float


def evaluate_smoke(
    generated: Sequence[Clip],
    scaled: ScaleParameters,
    held_out: Sequence[Clip],
    training: Sequence[Clip],
) -> SmokeEvaluation:
    """Compare clips of smoke, generated for :func:`caption_requests` of the held-out clips."""
    truths = [
        clip.window(0, len(other.times)) for clip, other in zip(held_out, generated, strict=True)
    ]
    others = [*generated[1:], generated[0]]
    near = [in_phase(clip, nearest_clip(clip.scene, training, scaled)) for clip in truths]
    heights = [[_mean_height(clip) for clip in clips] for clips in (truths, generated)]
    return SmokeEvaluation(
        _median_error([clip.fields for clip in generated], truths),
        _median_error([clip.fields for clip in others], truths),
        _median_error(near, truths),
        float(spearmanr(*heights).statistic),
    )


def _median_error(fields: Sequence[NDArray[np.float32]], truths: Sequence[Clip]) -> float:
    return float(
        np.median([relative_error(f, clip) for f, clip in zip(fields, truths, strict=True)])
    )


def _mean_height(clip: Clip) -> float:
    """Of the smoke, over the clip."""
    shares = clip.fields[:, :, 2] * clip.mesh.node_areas
    return float((shares @ clip.mesh.nodes[:, 1]).sum() / shares.sum())
