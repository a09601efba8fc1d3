"""What is measured of a clip, whatever the phase of its vortices."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from text2pde.channel import Channel, Flow
from text2pde.flows.clip import Clip
from text2pde.mesh import Kind, Mesh, Numbers

_WAKE = (1.0, 6.0, 1.5)
"""From where to where behind the cylinder, and how far to its sides, in diameters."""
_STROUHAL = (0.15, 0.45)
_TRIED = 601
STEADY = 0.02
"""Of the inlet's velocity: a wake that moves less has no frequency to speak of."""


class Statistics(NamedTuple):
    """Of one clip.

    Attributes:
        frequency: of the vortices, in Hz. fluctuation: the root mean square over the wake of what
            of the velocity across changes, in units of U.
        slip: the same of the velocity on the cylinder. divergence: the same of that of the
            velocity, in units of U / D.
    """

    frequency: float
    fluctuation: float
    slip: float
    divergence: float


def statistics(clip: Clip) -> Statistics:
    """What there is to measure of a flow past a cylinder; ValueError for another clip."""
    flow, mesh = past_cylinder(clip), clip.mesh
    velocity = clip.fields[..., :2].astype(np.float64) / flow.speed
    across = velocity[:, :, 1]
    wake = _in_wake(flow.channel, mesh)
    areas = mesh.node_areas[wake]
    moving = across[:, wake] - across[:, wake].mean(axis=0)
    shares = areas / areas.sum()
    fluctuation = np.sqrt((moving**2).mean(axis=0) @ shares)
    on = mesh.kinds == Kind.CYLINDER
    slip = np.sqrt((velocity[:, on] ** 2).sum(axis=2).mean())
    strouhal = _strouhal(moving * np.sqrt(shares), clip.interval)
    return Statistics(
        strouhal / flow.clock,
        float(fluctuation),
        float(slip),
        divergence(mesh, velocity) * flow.channel.diameter,
    )


def relative_error(found: NDArray[np.float32], truth: Clip) -> float:
    """``|found - truth| / |truth|`` of fields [F, N, 3] without units, in L2 over area and time."""
    units = np.array(truth.flow.units)
    areas = truth.mesh.node_areas[:, None]

    def norm(fields: NDArray[np.float32]) -> float:
        return float(np.sqrt(((fields / units) ** 2 * areas).sum()))

    return norm(found - truth.fields) / norm(truth.fields)


def past_cylinder(clip: Clip) -> Flow:
    """The flow of a clip; ValueError if it is none past a cylinder."""
    if not isinstance(clip.flow, Flow):
        raise ValueError(f"The clip is of {clip.flow}, and not of a flow past a cylinder.")
    return clip.flow


def divergence(mesh: Mesh, velocity: Numbers) -> float:
    """The root mean square over area and time of the divergence of velocities [F, N, 2] that are
    linear on each triangle."""
    gradient = _gradients(mesh)
    found = np.einsum("tkd,ftkd->ft", gradient, velocity[:, mesh.triangles])
    areas = mesh.areas
    return float(np.sqrt((found**2 @ areas / areas.sum()).mean()))


def _in_wake(channel: Channel, mesh: Mesh) -> NDArray[np.bool_]:
    """Which nodes lie behind the cylinder [N]."""
    x, y = (mesh.nodes - np.array([channel.x, channel.y])).T / channel.diameter
    start, end, side = _WAKE
    found: NDArray[np.bool_] = (x > start) & (x < end) & (np.abs(y) < side)
    return found


def _gradients(mesh: Mesh) -> Numbers:
    """Of the three linear functions of each triangle, [T, 3, 2]."""
    opposite = np.roll(mesh.corners, -2, axis=1) - np.roll(mesh.corners, -1, axis=1)
    turned = np.stack([-opposite[..., 1], opposite[..., 0]], axis=-1)
    found: Numbers = turned / (2 * mesh.areas)[:, None, None]
    return found


def _strouhal(values: Numbers, interval: float) -> float:
    """The frequency, in U / D, of the wave that explains most of values [F, N] around zero.

    At each of many frequencies a sine, a cosine and a constant are fitted to all of them.
    """
    times = interval * np.arange(len(values))
    tried = np.linspace(*_STROUHAL, _TRIED)
    explained = np.array([_explained(values, 2 * np.pi * each * times) for each in tried])
    return float(tried[explained.argmax()])


def _explained(values: Numbers, phases: Numbers) -> float:
    waves = np.stack([np.ones_like(phases), np.cos(phases), np.sin(phases)], axis=1)
    basis, _ = np.linalg.qr(waves)
    return float(((basis.T @ values) ** 2).sum())
