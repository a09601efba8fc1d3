r"""Rising smoke by the Boussinesq equations, on a staggered grid of square cells.

.. math::
    \partial_t u + (u \cdot \nabla) u = -\nabla p + \nu \Delta u + b s \, e_y, \qquad
    \nabla \cdot u = 0, \qquad \partial_t s + u \cdot \nabla s = 0

in a box with no-slip walls. Velocities live on the faces of cells and densities at their centres
(Harlow and Welch 1965). Velocities are advected by a semi-Lagrangian scheme (Stam 1999) and made
divergence-free by an exact projection with cosine transforms; the density is advected by a
conservative finite-volume scheme with van Leer's limiter.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.fft import dctn, idctn
from scipy.ndimage import map_coordinates
from scipy.special import expit

from text2pde.mesh import FloatArray, IntArray, Mesh
from text2pde.subject.smoke.plume import Plume

CELLS = 48
"""A side of the default grid."""


class SmokeState(NamedTuple):
    """The state: u on vertical faces [n, n + 1], v on horizontal faces [n + 1, n], and the density
    [n, n]; rows ascend with y."""

    u: FloatArray
    v: FloatArray
    density: FloatArray


def start(plume: Plume, cells: int) -> SmokeState:
    """Fluid at rest, with a cloud whose edge is one and a half cells wide."""
    width = plume.side / cells
    centres = (np.arange(cells) + 0.5) * width
    away = np.hypot(centres[None, :] - plume.x, centres[:, None] - plume.y)
    density = expit((plume.radius - away) / (0.5 * width))
    return SmokeState(np.zeros((cells, cells + 1)), np.zeros((cells + 1, cells)), density)


def advance(smoke: SmokeState, plume: Plume, step: float) -> SmokeState:
    """The state one time step later."""
    width = plume.side / len(smoke.density)
    u, v, density = _advected(smoke, step / width)
    spread = step * plume.viscosity / width**2
    u += spread * _laplacian(u)
    v += spread * _laplacian(v.T).T
    v[1:-1] += step * plume.buoyancy * (density[1:] + density[:-1]) / 2
    u[:, [0, -1]] = v[[0, -1]] = 0
    return _projected(SmokeState(u, v, density))


def cell_divergence(smoke: SmokeState) -> FloatArray:
    """The divergence of each cell, times its width [n, n]."""
    found: FloatArray = np.diff(smoke.u, axis=1) + np.diff(smoke.v, axis=0)
    return found


def fields(smoke: SmokeState) -> FloatArray:
    """Velocity and density at the corners of cells, row by row from below, [(n + 1)^2, 3]."""
    u, v = np.zeros((len(smoke.v),) * 2), np.zeros((len(smoke.v),) * 2)
    u[1:-1] = (smoke.u[1:] + smoke.u[:-1]) / 2
    v[:, 1:-1] = (smoke.v[:, 1:] + smoke.v[:, :-1]) / 2
    around = np.pad(smoke.density, 1, mode="edge")
    density = (around[1:, 1:] + around[1:, :-1] + around[:-1, 1:] + around[:-1, :-1]) / 4
    return np.stack([u, v, density], axis=-1).reshape(-1, 3)


def uniform_mesh(plume: Plume, cells: int) -> Mesh:
    """The corners of cells as nodes, with each cell cut into two triangles."""
    ticks = np.linspace(0, plume.side, cells + 1)
    nodes = np.stack([c.ravel() for c in np.meshgrid(ticks, ticks)], axis=1)
    number = np.arange((cells + 1) ** 2).reshape(cells + 1, cells + 1)
    a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1]
    triangles: IntArray = np.concatenate(
        [np.stack(t, axis=-1).reshape(-1, 3) for t in ((a, b, c), (a, c, d))]
    )
    return Mesh(nodes, triangles, plume.kinds(nodes))


def _advected(smoke: SmokeState, courant: float) -> SmokeState:
    """Velocity and density one step later; ``courant``: the Courant number of 1 m/s."""
    u, v, density = smoke
    faces = np.arange(len(density) + 1, dtype=np.float64)
    centres = faces[:-1] + 0.5

    def origin(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Where the fluid at x and y was one step before, by the midpoint rule."""
        half_x = x - courant / 2 * _interpolated(u, x, y, _U)
        half_y = y - courant / 2 * _interpolated(v, x, y, _V)
        before_x = x - courant * _interpolated(u, half_x, half_y, _U)
        return before_x, y - courant * _interpolated(v, half_x, half_y, _V)

    return SmokeState(
        _interpolated(u, *origin(*np.meshgrid(faces, centres)), _U, order=3),
        _interpolated(v, *origin(*np.meshgrid(centres, faces)), _V, order=3),
        _transported(density, u, v, courant),
    )


_U, _V = (0.0, 0.5), (0.5, 0.0)
"""The position of the first face of each direction, in cells."""


def _interpolated(
    values: FloatArray, x: FloatArray, y: FloatArray, first: tuple[float, float], order: int = 1
) -> FloatArray:
    """Values at other positions, in cells; constant beyond the boundary."""
    positions = np.stack([y - first[1], x - first[0]])
    found: FloatArray = map_coordinates(values, positions, order=order, mode="nearest")
    return found


def _transported(density: FloatArray, u: FloatArray, v: FloatArray, courant: float) -> FloatArray:
    """The density after fluxes through all faces, by Heun's method (Shu and Osher 1988, 2.16)."""

    def gain(values: FloatArray) -> FloatArray:
        horizontal = np.diff(u * _at_faces(values, u), axis=1)
        vertical = np.diff(v * _at_faces(values.T, v.T).T, axis=0)
        change: FloatArray = -courant * (horizontal + vertical)
        return change

    trial = density + gain(density)
    found: FloatArray = (density + trial + gain(trial)) / 2
    return found


def _at_faces(values: FloatArray, speed: FloatArray) -> FloatArray:
    """Upwind values at the faces of each row's cells, with limited slopes [n, n + 1]."""
    padded = np.pad(values, ((0, 0), (2, 2)), mode="edge")
    steps = np.diff(padded, axis=1)
    before, after = steps[:, :-1], steps[:, 1:]
    product, total = before * after, before + after
    slope = np.where(product > 0, 2 * product / np.where(total == 0, 1, total), 0)
    inner = padded[:, 1:-1]
    found: FloatArray = np.where(speed > 0, (inner + slope / 2)[:, :-1], (inner - slope / 2)[:, 1:])
    return found


def _laplacian(values: FloatArray) -> FloatArray:
    """The second difference, times the width squared, with zero velocity on walls that lie half a
    cell beyond the first and last row, and on the first and last column."""
    around = np.pad(values, 1, mode="edge")
    around[[0, -1]] *= -1
    found: FloatArray = (
        around[2:, 1:-1] + around[:-2, 1:-1] + around[1:-1, 2:] + around[1:-1, :-2] - 4 * values
    )
    return found


def _projected(smoke: SmokeState) -> SmokeState:
    """The divergence-free part, by a Poisson equation with closed walls."""
    source = dctn(cell_divergence(smoke), type=2)
    waves = 2 - 2 * np.cos(np.pi * np.arange(len(source)) / len(source))
    scale = -(waves[:, None] + waves[None, :])
    scale[0, 0] = 1
    source[0, 0] = 0
    pressure = idctn(source / scale, type=2)
    u, v = smoke.u.copy(), smoke.v.copy()
    u[:, 1:-1] -= np.diff(pressure, axis=1)
    v[1:-1] -= np.diff(pressure, axis=0)
    return smoke._replace(u=u, v=v)
