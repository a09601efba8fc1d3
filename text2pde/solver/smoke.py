r"""Smoke that rises, on a grid of square cells.

.. math::
    \partial_t u + (u \cdot \nabla) u = -\nabla p + \nu \Delta u + b s \, e_y, \qquad
    \nabla \cdot u = 0, \qquad \partial_t s + u \cdot \nabla s = 0

in a box at whose walls the fluid rests. Velocities live on the sides of cells and densities in
their middles (Harlow and Welch 1965). Velocities are carried along paths backwards (Stam 1999), and
their divergence is taken off by cosine transforms, exactly; smoke passes from cell to cell with
van Leer's limiter, so that none is made or lost.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.fft import dctn, idctn
from scipy.ndimage import map_coordinates
from scipy.special import expit

from text2pde.mesh import Integers, Mesh, Numbers
from text2pde.plume import Plume


class Smoke(NamedTuple):
    """The state: u on sides that face x [n, n + 1], v on those that face y [n + 1, n], and the
    density [n, n]; rows go up."""

    u: Numbers
    v: Numbers
    density: Numbers


def start(plume: Plume, cells: int) -> Smoke:
    """At rest, with a cloud whose edge is a cell and a half wide."""
    width = plume.side / cells
    middles = (np.arange(cells) + 0.5) * width
    away = np.hypot(middles[None, :] - plume.x, middles[:, None] - plume.y)
    density = expit((plume.radius - away) / (0.5 * width))
    return Smoke(np.zeros((cells, cells + 1)), np.zeros((cells + 1, cells)), density)


def advance(smoke: Smoke, plume: Plume, step: float) -> Smoke:
    """The state a step later."""
    width = plume.side / len(smoke.density)
    u, v, density = _carried(smoke, step / width)
    spread = step * plume.viscosity / width**2
    u += spread * _laplacian(u)
    v += spread * _laplacian(v.T).T
    v[1:-1] += step * plume.buoyancy * (density[1:] + density[:-1]) / 2
    u[:, [0, -1]] = v[[0, -1]] = 0
    return _without_divergence(Smoke(u, v, density))


def divergence(smoke: Smoke) -> Numbers:
    """Of each cell, times its width [n, n]."""
    found: Numbers = np.diff(smoke.u, axis=1) + np.diff(smoke.v, axis=0)
    return found


def fields(smoke: Smoke) -> Numbers:
    """Velocity and density at the corners of cells, row by row from below, [(n + 1)^2, 3]."""
    u, v = np.zeros((len(smoke.v),) * 2), np.zeros((len(smoke.v),) * 2)
    u[1:-1] = (smoke.u[1:] + smoke.u[:-1]) / 2
    v[:, 1:-1] = (smoke.v[:, 1:] + smoke.v[:, :-1]) / 2
    around = np.pad(smoke.density, 1, mode="edge")
    density = (around[1:, 1:] + around[1:, :-1] + around[:-1, 1:] + around[:-1, :-1]) / 4
    return np.stack([u, v, density], axis=-1).reshape(-1, 3)


def corners(plume: Plume, cells: int) -> Mesh:
    """The corners of cells as a mesh, with each cell cut into two triangles."""
    places = np.linspace(0, plume.side, cells + 1)
    nodes = np.stack([c.ravel() for c in np.meshgrid(places, places)], axis=1)
    number = np.arange((cells + 1) ** 2).reshape(cells + 1, cells + 1)
    a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1]
    triangles: Integers = np.concatenate(
        [np.stack(t, axis=-1).reshape(-1, 3) for t in ((a, b, c), (a, c, d))]
    )
    return Mesh(nodes, triangles, plume.kinds(nodes))


def _carried(smoke: Smoke, cells: float) -> Smoke:
    """All that flows, a step later; cells: that a speed of 1 m/s passes in a step."""
    u, v, density = smoke
    sides = np.arange(len(density) + 1, dtype=np.float64)
    middles = sides[:-1] + 0.5

    def origin(x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
        """Where what is at x and y was, by the midpoint rule."""
        half_x = x - cells / 2 * _between(u, x, y, _U)
        half_y = y - cells / 2 * _between(v, x, y, _V)
        before_x = x - cells * _between(u, half_x, half_y, _U)
        return before_x, y - cells * _between(v, half_x, half_y, _V)

    return Smoke(
        _between(u, *origin(*np.meshgrid(sides, middles)), _U, order=3),
        _between(v, *origin(*np.meshgrid(middles, sides)), _V, order=3),
        _passed_on(density, u, v, cells),
    )


_U, _V = (0.0, 0.5), (0.5, 0.0)
"""Where the first side of each direction lies, in cells."""


def _between(
    values: Numbers, x: Numbers, y: Numbers, first: tuple[float, float], order: int = 1
) -> Numbers:
    """Values at other places, in cells; those on the border beyond it."""
    places = np.stack([y - first[1], x - first[0]])
    found: Numbers = map_coordinates(values, places, order=order, mode="nearest")
    return found


def _passed_on(density: Numbers, u: Numbers, v: Numbers, cells: float) -> Numbers:
    """Smoke that passes the sides of cells, by Heun's method (Shu and Osher 1988, eq. 2.16)."""

    def gain(values: Numbers) -> Numbers:
        across = np.diff(u * _at_sides(values, u), axis=1)
        up = np.diff(v * _at_sides(values.T, v.T).T, axis=0)
        change: Numbers = -cells * (across + up)
        return change

    trial = density + gain(density)
    found: Numbers = (density + trial + gain(trial)) / 2
    return found


def _at_sides(values: Numbers, speed: Numbers) -> Numbers:
    """Of each row, the values at the sides of its cells as they come with the wind [n, n + 1]."""
    padded = np.pad(values, ((0, 0), (2, 2)), mode="edge")
    steps = np.diff(padded, axis=1)
    before, after = steps[:, :-1], steps[:, 1:]
    product, total = before * after, before + after
    slope = np.where(product > 0, 2 * product / np.where(total == 0, 1, total), 0)
    inner = padded[:, 1:-1]
    found: Numbers = np.where(speed > 0, (inner + slope / 2)[:, :-1], (inner - slope / 2)[:, 1:])
    return found


def _laplacian(values: Numbers) -> Numbers:
    """The second difference, times the width squared: between walls at rest, which lie half a cell
    beyond the first and last row, and on the first and last column."""
    around = np.pad(values, 1, mode="edge")
    around[[0, -1]] *= -1
    found: Numbers = (
        around[2:, 1:-1] + around[:-2, 1:-1] + around[1:-1, 2:] + around[1:-1, :-2] - 4 * values
    )
    return found


def _without_divergence(smoke: Smoke) -> Smoke:
    """Minus the gradient of what solves Poisson's equation for the divergence, walls closed."""
    source = dctn(divergence(smoke), type=2)
    waves = 2 - 2 * np.cos(np.pi * np.arange(len(source)) / len(source))
    scale = -(waves[:, None] + waves[None, :])
    scale[0, 0] = 1
    source[0, 0] = 0
    pressure = idctn(source / scale, type=2)
    u, v = smoke.u.copy(), smoke.v.copy()
    u[:, 1:-1] -= np.diff(pressure, axis=1)
    v[1:-1] -= np.diff(pressure, axis=0)
    return smoke._replace(u=u, v=v)
