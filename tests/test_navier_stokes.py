"""The solver of the Navier-Stokes equations: exact parts, its order in time, a benchmark."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest

from text2pde.mesh import FloatArray, Mesh, NodeKind, check_mesh
from text2pde.solver.forces import (
    Oscillation,
    coefficients,
    oscillation,
    strouhal,
)
from text2pde.solver.meshing import MeshSizes, triangulate
from text2pde.solver.navier_stokes import (
    Equations,
    FlowState,
    discretise,
    longest_step,
)
from text2pde.subject.cylinder.channel import Channel, CylinderFlow

COARSE = MeshSizes(near=0.35, far=0.07)
DFG = CylinderFlow(Channel(x=0.2, y=0.2, radius=0.05, length=2.2), speed=1.0)
"""The benchmark 2D-2 of Schaefer and Turek 1996: Re = 100, the cylinder a little off the middle."""


@cache
def mesh_of(sizes: MeshSizes = COARSE, flow: CylinderFlow = DFG) -> Mesh:
    return triangulate(flow.channel, sizes)


@cache
def equations(step: float = 1e-3) -> Equations:
    return discretise(DFG, mesh_of(), step)


def advanced(equations: Equations, state: FlowState, steps: int) -> FlowState:
    for _ in range(steps):
        state = equations.advance(state)
    return state


# ----------------------------------------------------------------------------------------- mesh


def test_a_mesh_fills_the_channel() -> None:
    mesh, channel = mesh_of(), DFG.channel
    hole = np.flatnonzero(mesh.kinds == NodeKind.CYLINDER)
    n = len(hole)
    polygon = n / 2 * channel.radius**2 * np.sin(2 * np.pi / n)
    assert mesh.areas.sum() == pytest.approx(channel.length * channel.height - polygon, rel=1e-6)
    distance = np.hypot(*(mesh.nodes[hole] - np.array([channel.x, channel.y])).T)
    np.testing.assert_allclose(distance, channel.radius, rtol=1e-9)
    assert np.array_equal(mesh.nodes, triangulate(channel, COARSE).nodes)
    # Finer at the cylinder than far ahead of it.
    near = mesh.heights[(mesh.kinds[mesh.triangles] == NodeKind.CYLINDER).any(axis=1)]
    assert near.max() < 0.5 * mesh.heights.max()


def test_threads_mesh_one_after_the_other() -> None:
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda _: triangulate(DFG.channel, COARSE), range(3)))
    assert all(np.array_equal(one.nodes, mesh_of().nodes) for one in found)


def test_unsound_meshes_are_refused() -> None:
    mesh = mesh_of()
    cases = [
        (mesh._replace(nodes=np.zeros((len(mesh.nodes), 3))), "must have \\[N, 2\\]"),
        (mesh._replace(triangles=mesh.triangles[:, :2]), "not \\[T, 3\\]"),
        (mesh._replace(triangles=mesh.triangles + 1), "beyond the"),
        (mesh._replace(triangles=mesh.triangles[:, ::-1]), "no positive area"),
        (mesh._replace(kinds=mesh.kinds[1:]), "give one for each"),
        (mesh._replace(nodes=mesh.nodes * np.nan), "not finite"),
    ]
    for wrong, why in cases:
        with pytest.raises(ValueError, match=why):
            check_mesh(wrong)
    with pytest.raises(ValueError, match="must be positive"):
        triangulate(DFG.channel, MeshSizes(near=0.0))


def test_impossible_channels_and_flows_are_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Channel(x=0.2, y=0.04, radius=0.05)
    with pytest.raises(ValueError, match="radius is -1"):
        Channel(x=0.2, y=0.2, radius=-1)
    with pytest.raises(ValueError, match="speed is 0"):
        CylinderFlow(DFG.channel, speed=0)
    with pytest.raises(ValueError, match="not one of a channel with a cylinder"):
        discretise(replace(DFG, channel=Channel(x=0.3, y=0.2, radius=0.05)), mesh_of())
    with pytest.raises(ValueError, match="step is -1"):
        discretise(DFG, mesh_of(), -1.0)


# ------------------------------------------------------------------------------------ equations


def test_convection_and_divergence_are_exact_on_polynomials() -> None:
    """Of u = (x, -y): convection (x, y), divergence 0; of u = (x^2, 0): divergence 2 x."""
    own = equations()
    x, y = own.points.T
    zero = np.zeros_like(x)
    u = np.stack([x, -y], axis=1)
    np.testing.assert_allclose(
        own.convect(u), own.matrices.mass @ np.stack([x, y], axis=1), atol=1e-15
    )
    assert np.abs(own.divergence(u)).max() < 1e-15
    quadratic = own.divergence(np.stack([x**2, zero], axis=1))
    assert quadratic.sum() == pytest.approx(2 * integral_of_x(own.mesh), rel=1e-12)


def integral_of_x(mesh: Mesh) -> float:
    return float((mesh.areas * mesh.vertices[:, :, 0].mean(axis=1)).sum())


def test_without_convection_the_steady_flow_is_steady() -> None:
    own = replace(equations(), convect=np.zeros_like)
    start = own.start()
    assert np.abs(own.divergence(start.velocity)).max() < 1e-12
    later = advanced(own, start, 50)
    np.testing.assert_allclose(later.velocity, start.velocity, atol=1e-10)
    np.testing.assert_allclose(later.pressure, start.pressure, atol=1e-10)


def test_as_much_leaves_as_comes_in() -> None:
    state = advanced(equations(), equations().start(), 100)
    for kind in (NodeKind.INLET, NodeKind.OUTLET):
        flux = flux_through(equations(), state, kind)
        assert flux == pytest.approx(DFG.speed * DFG.channel.height, rel=2e-3)


def flux_through(own: Equations, state: FlowState, kind: NodeKind) -> float:
    """The integral of u_x over the inlet or the outlet, by Simpson's rule on its edges."""
    at = 0.0 if kind == NodeKind.INLET else own.flow.channel.length
    there = np.flatnonzero(np.abs(own.points[:, 0] - at) < 1e-9)
    order = there[np.argsort(own.points[there, 1])]
    y, u = own.points[order, 1], state.velocity[order, 0]
    h = y[2::2] - y[:-2:2]
    return float((h / 6 * (u[:-2:2] + 4 * u[1:-1:2] + u[2::2])).sum())


def test_steps_are_of_second_order() -> None:
    """Errors 0.1 s after a state that is known from short steps, as is the one before it."""
    finest = 2.5e-4
    own = equations(finest)
    way = [advanced(own, own.start(), 400)]
    for _ in range(8):
        way.append(own.advance(way[-1]))
    found = []
    for many in (8, 4, 2, 1):
        before = way[-1 - many]
        start = way[-1]._replace(previous=(before.velocity, before.convection))
        step = many * finest
        found.append(advanced(equations(step), start, round(0.1 / step)).velocity)
    errors = [np.abs(one - other).max() for one, other in pairwise(found)]
    assert errors[0] / errors[1] > 3
    assert errors[1] / errors[2] > 3


# ------------------------------------------------------------------------------------- measures


def test_an_oscillation_is_measured_between_its_samples() -> None:
    t = 0.01 * np.arange(700, dtype=np.float64)
    found = oscillation(0.3 + 2 * np.sin(2 * np.pi * 3.07 * t), 0.01)
    assert found.frequency == pytest.approx(3.07, rel=1e-3)
    assert found.amplitude == pytest.approx(2, rel=1e-3)
    assert found.highest == pytest.approx(2.3, rel=1e-3)
    assert np.isnan(oscillation(t, 0.01).frequency)


# ------------------------------------------------------------------------------------ benchmark


class Measured(NamedTuple):
    """Of the benchmark 2D-2."""

    strouhal: float
    drag: Oscillation
    lift: Oscillation
    divergence: float


def benchmark(sizes: MeshSizes, seconds: float, share: float = 1.0) -> Measured:
    """Coefficients over the last two seconds, in steps of a share of the longest."""
    mesh = mesh_of(sizes)
    step = share * longest_step(DFG, mesh)
    own = discretise(DFG, mesh, step)
    state, forces = own.start(), []
    while state.time < seconds:
        state = own.advance(state)
        forces.append(own.force(state))
    last: FloatArray = coefficients(np.array(forces), DFG)[-round(2 / step) :]
    drag, lift = (oscillation(last[:, i], step) for i in range(2))
    weak = float(np.abs(own.divergence(state.velocity)).max() / mesh.areas.max())
    return Measured(strouhal(lift.frequency, DFG), drag, lift, weak)


@pytest.mark.slow
def test_a_coarse_mesh_is_near_the_benchmark() -> None:
    found = benchmark(COARSE, 5.0)
    assert found.strouhal == pytest.approx(0.300, rel=0.05)
    assert found.drag.highest == pytest.approx(3.23, rel=0.06)
    assert found.lift.highest == pytest.approx(1.0, rel=0.3)


FINE, FINEST = MeshSizes(0.2, 0.035, 0.15), MeshSizes(0.15, 0.025, 0.12)


@cache
def fine() -> Measured:
    return benchmark(FINE, 8.0)


@pytest.mark.slow
def test_the_benchmark_of_schaefer_and_turek() -> None:
    """Their intervals: St 0.295 to 0.305, drag 3.22 to 3.24 and lift 0.99 to 1.01 at most."""
    assert 0.295 <= fine().strouhal <= 0.305
    assert 3.22 * 0.99 <= fine().drag.highest <= 3.24 * 1.01
    assert 0.99 * 0.97 <= fine().lift.highest <= 1.01 * 1.03


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "share"), [(FINE, 0.5), (FINEST, 1.0)])
def test_shorter_steps_and_a_finer_mesh_change_the_benchmark_little(
    sizes: MeshSizes, share: float
) -> None:
    found = benchmark(sizes, 8.0, share)
    assert found.strouhal == pytest.approx(fine().strouhal, rel=0.005)
    assert found.drag.highest == pytest.approx(fine().drag.highest, rel=0.005)
    assert found.lift.highest == pytest.approx(fine().lift.highest, rel=0.005)
