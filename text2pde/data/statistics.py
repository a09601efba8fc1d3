"""What is measured of a clip, independently of the phase of its vortices."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from text2pde.data.clip import Clip
from text2pde.mesh import BoolArray, FloatArray, Mesh, NodeKind
from text2pde.subject.cylinder.channel import Channel, CylinderFlow

_WAKE = (1.0, 6.0, 1.5)
"""Where the wake starts and ends behind the cylinder, and its half width, in diameters."""
_STROUHAL = (0.15, 0.45)
_CANDIDATES = 601
STEADY = 0.02
"""Below this v'/U in the wake there is no vortex shedding whose frequency could be measured."""


class WakeStatistics(NamedTuple):
    """Of one clip of a flow past a cylinder.

    Attributes:
        frequency: of vortex shedding, in Hz.
        fluctuation: rms of the transverse velocity fluctuation v' over the wake, in units of U.
        slip: rms of the velocity on the cylinder, in units of U.
        divergence: rms of the divergence of the velocity, in units of U / D.
    """

    frequency: float
    fluctuation: float
    slip: float
    divergence: float


def wake_statistics(clip: Clip) -> WakeStatistics:
    """Vortex shedding, and how well boundary condition and incompressibility are satisfied.

    Raises:
        ValueError: unless the clip is of a flow past a cylinder.
    """
    flow, mesh = cylinder_flow_of(clip), clip.mesh
    velocity = clip.fields[..., :2].astype(np.float64) / flow.speed
    transverse = velocity[:, :, 1]
    wake = _in_wake(flow.channel, mesh)
    areas = mesh.node_areas[wake]
    deviation = transverse[:, wake] - transverse[:, wake].mean(axis=0)
    shares = areas / areas.sum()
    fluctuation = np.sqrt((deviation**2).mean(axis=0) @ shares)
    on = mesh.kinds == NodeKind.CYLINDER
    slip = np.sqrt((velocity[:, on] ** 2).sum(axis=2).mean())
    strouhal = _strouhal(deviation * np.sqrt(shares), clip.interval)
    return WakeStatistics(
        strouhal / flow.time_unit,
        float(fluctuation),
        float(slip),
        rms_divergence(mesh, velocity) * flow.channel.diameter,
    )


def relative_error(fields: NDArray[np.float32], truth: Clip) -> float:
    """``|fields - truth| / |truth|`` of dimensionless fields [F, N, 3], in L2 over area and time.

    Args:
        fields: in SI units, as those of the clip are.
    """
    units = np.array(truth.scene.units)
    areas = truth.mesh.node_areas[:, None]

    def norm(values: NDArray[np.float32]) -> float:
        return float(np.sqrt(((values / units) ** 2 * areas).sum()))

    return norm(fields - truth.fields) / norm(truth.fields)


def rms_divergence(mesh: Mesh, velocity: FloatArray) -> float:
    """The rms over area and time of the divergence of piecewise linear velocities [F, N, 2]."""
    divergence = np.einsum("tkd,ftkd->ft", mesh.gradients, velocity[:, mesh.triangles])
    areas = mesh.areas
    return float(np.sqrt((divergence**2 @ areas / areas.sum()).mean()))


def vorticity(mesh: Mesh, velocity: FloatArray) -> FloatArray:
    """dv/dx - du/dy of velocities [F, N, 2] at the nodes [F, N].

    Gradients are constant on triangles; at a node they are averaged over those around it, by area.
    """
    d_dx, d_dy = _derivatives(mesh)
    found: FloatArray = (d_dx @ velocity[..., 1].T - d_dy @ velocity[..., 0].T).T
    return found


def cylinder_flow_of(clip: Clip) -> CylinderFlow:
    """The scene of a clip.

    Raises:
        ValueError: unless it is a flow past a cylinder.
    """
    if not isinstance(clip.scene, CylinderFlow):
        raise ValueError(f"The clip is of {clip.scene}; it must be of a flow past a cylinder.")
    return clip.scene


def _derivatives(mesh: Mesh) -> tuple[csr_matrix, csr_matrix]:
    """d/dx and d/dy, from nodal values to nodal values [N, N]."""
    rows = np.repeat(mesh.triangles, 3, axis=1).ravel()
    columns = np.tile(mesh.triangles, 3).ravel()
    shares = mesh.areas[:, None] / (3 * mesh.node_areas[mesh.triangles])  # [T, 3]
    entries = shares[:, :, None, None] * mesh.gradients[:, None]  # [T, 3, 3, 2]
    shape = (len(mesh.nodes),) * 2
    d_dx, d_dy = (csr_matrix((entries[..., i].ravel(), (rows, columns)), shape) for i in (0, 1))
    return d_dx, d_dy


def _in_wake(channel: Channel, mesh: Mesh) -> BoolArray:
    """Which nodes lie in the wake [N]."""
    x, y = (mesh.nodes - np.array([channel.x, channel.y])).T / channel.diameter
    start, end, half_width = _WAKE
    found: BoolArray = (x > start) & (x < end) & (np.abs(y) < half_width)
    return found


def _strouhal(values: FloatArray, interval: float) -> float:
    """The frequency, in U / D, of the wave that explains most of values [F, N] around zero.

    At each candidate a sine, a cosine and a constant are fitted to all of them.
    """
    times = interval * np.arange(len(values))
    candidates = np.linspace(*_STROUHAL, _CANDIDATES)
    explained = np.array([_explained(values, 2 * np.pi * each * times) for each in candidates])
    return float(candidates[explained.argmax()])


def _explained(values: FloatArray, phases: FloatArray) -> float:
    waves = np.stack([np.ones_like(phases), np.cos(phases), np.sin(phases)], axis=1)
    basis, _ = np.linalg.qr(waves)
    return float(((basis.T @ values) ** 2).sum())
