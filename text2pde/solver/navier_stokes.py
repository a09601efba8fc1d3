r"""The incompressible Navier-Stokes equations in a channel, by finite elements.

.. math:: \partial_t u + (u \cdot \nabla) u = -\nabla p + \nu \Delta u, \qquad \nabla \cdot u = 0

Velocities are continuous and piecewise quadratic, pressures piecewise linear (Taylor and Hood
1973). A time step of length h is an incremental pressure correction (Goda 1979; Guermond, Minev and
Shen 2006, section 3.2) with second-order backward differences:

.. math::
    \frac{3 \tilde u - 4 u^n + u^{n-1}}{2h} + 2 N(u^n) - N(u^{n-1})
        &= -\nabla p^n + \nu \Delta \tilde u \\
    \Delta \varphi = \frac{3}{2h} \nabla \cdot \tilde u, \qquad
    p^{n+1} = p^n + \varphi, \qquad u^{n+1} &= \tilde u - \frac{2h}{3} \nabla \varphi

Convection N is explicit, so that three matrices are factorised once for a flow, and a CFL condition
bounds the time step. The density is 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from text2pde.mesh import FloatArray, IntArray, Mesh, NodeKind, check_mesh
from text2pde.subject.cylinder.channel import CylinderFlow

Solve = Callable[[FloatArray], FloatArray]
"""Maps right-hand sides [n, ...] to solutions."""

CFL = 0.25
"""The longest time step, in units of the time to cross the flattest triangle at top speed."""


class FlowState(NamedTuple):
    """A flow at one time.

    Attributes:
        time: in seconds.
        velocity: at the P2 nodes [n2, 2], in m/s.
        convection: N of the velocity, tested with the P2 basis [n2, 2].
        pressure: kinematic, at the nodes of the mesh [N], in m^2/s^2.
        previous: velocity and convection one step before.
    """

    time: float
    velocity: FloatArray
    convection: FloatArray
    pressure: FloatArray
    previous: tuple[FloatArray, FloatArray]


class DivergedError(ArithmeticError):
    """The solution grew without bound: the time steps were too long."""


class Matrices(NamedTuple):
    """Of the bilinear forms; ``divergence`` and ``gradient`` have one for each axis."""

    mass: Any
    stiffness: Any
    divergence: tuple[Any, Any]
    gradient: tuple[Any, Any]


class Solves(NamedTuple):
    """The factorised systems of a step, and the stationary Stokes problem of the start."""

    momentum: Solve
    correction: Solve
    projection: Solve
    stokes: Callable[[], tuple[FloatArray, FloatArray]]


@dataclass(frozen=True)
class Equations:
    """The discrete equations of a flow on a mesh, for one length of the time step.

    Attributes:
        step: the length of a time step, in seconds.
        points: coordinates of the P2 nodes [n2, 2], those of the mesh first.
        edges: the mesh nodes at the ends of each edge whose midpoint is a P2 node [n2 - N, 2].
        convect: N, from velocities to their convection.
    """

    flow: CylinderFlow
    mesh: Mesh
    step: float
    points: FloatArray
    edges: IntArray
    matrices: Matrices
    convect: Callable[[FloatArray], FloatArray]
    solves: Solves

    def start(self) -> FlowState:
        """The stationary Stokes flow."""
        velocity, pressure = self.solves.stokes()
        convection = self.convect(velocity)
        return FlowState(0.0, velocity, convection, pressure, (velocity, convection))

    def start_from(self, fields: FloatArray) -> FlowState:
        """A flow whose velocity and pressure are given at the nodes of the mesh, [N, 3].

        The velocity is interpolated linearly along edges; the first step removes what divergence
        it has.
        """
        at_nodes = fields[:, :2]
        velocity = np.concatenate([at_nodes, at_nodes[self.edges].mean(axis=1)])
        convection = self.convect(velocity)
        return FlowState(0.0, velocity, convection, fields[:, 2].copy(), (velocity, convection))

    def advance(self, state: FlowState) -> FlowState:
        """The flow one step later."""
        h, previous, matrices = self.step, state.previous, self.matrices
        known = matrices.mass @ (4 * state.velocity - previous[0]) / (2 * h)
        known -= 2 * state.convection - previous[1]
        known += self._pressure_force(state.pressure)
        trial = self.solves.momentum(known)
        change = self.solves.correction(-3 / (2 * h) * self.divergence(trial))
        slope = np.stack([g @ change for g in matrices.gradient], axis=1)
        velocity = self.solves.projection(matrices.mass @ trial - 2 * h / 3 * slope)
        return FlowState(
            state.time + h,
            velocity,
            self.convect(velocity),
            state.pressure + change,
            (state.velocity, state.convection),
        )

    def divergence(self, velocity: FloatArray) -> FloatArray:
        """The divergence tested with the P1 basis [N]."""
        parts = enumerate(self.matrices.divergence)
        found: FloatArray = sum(d @ velocity[:, i] for i, d in parts)
        return found

    def fields(self, state: FlowState) -> FloatArray:
        """Velocity and pressure at the nodes of the mesh, [N, 3]."""
        count = len(self.mesh.nodes)
        return np.concatenate([state.velocity[:count], state.pressure[:, None]], axis=1)

    def force(self, state: FlowState) -> FloatArray:
        """Drag and lift on the cylinder [2], in N/m per density.

        They are the residual of the momentum equation tested with the P2 function that is 1 on the
        cylinder's nodes, which converges faster than the integral of the stress.
        """
        matrices = self.matrices
        change = (state.velocity - state.previous[0]) / self.step
        residual = matrices.mass @ change + state.convection
        residual += self.flow.viscosity * (matrices.stiffness @ state.velocity)
        residual -= self._pressure_force(state.pressure)
        cylinder = self.flow.channel.kinds(self.points) == NodeKind.CYLINDER
        force: FloatArray = -residual[cylinder].sum(axis=0)
        return force

    def _pressure_force(self, pressure: FloatArray) -> FloatArray:
        """Minus the pressure gradient, integrated by parts, tested with the P2 basis [n2, 2]."""
        return np.stack([d.T @ pressure for d in self.matrices.divergence], axis=1)


def longest_step(flow: CylinderFlow, mesh: Mesh) -> float:
    """The longest time step that is stable, for a top speed of twice the mean inlet velocity."""
    return CFL * float(mesh.heights.min()) / (2 * flow.speed)


def discretise(flow: CylinderFlow, mesh: Mesh, step: float | None = None) -> Equations:
    """The equations of a flow on a mesh of its channel.

    Args:
        step: the length of a time step in seconds; :func:`longest_step` if None.

    Raises:
        ValueError: without the package scikit-fem, for a mesh of another channel, and for a step
            that is not positive.
    """
    step = longest_step(flow, mesh) if step is None else step
    if not 0 < step < np.inf:
        raise ValueError(f"The step is {step} s; it must be positive and finite.")
    check_mesh(mesh)
    _check_channel(flow, mesh)
    return _assembled(flow, mesh, step)


def _check_channel(flow: CylinderFlow, mesh: Mesh) -> None:
    channel = flow.channel
    kinds = channel.kinds(mesh.nodes)
    missing = [kind.name.lower() for kind in NodeKind if not (kinds == kind).any()]
    outside = (mesh.nodes.min() < -1e-6) or (
        mesh.nodes.max(axis=0) > np.array([channel.length, channel.height]) + 1e-6
    ).any()
    if missing or outside or not np.array_equal(kinds, mesh.kinds):
        why = f"it has no node of kind {missing[0]}" if missing else "its nodes lie elsewhere"
        raise ValueError(f"The mesh is not one of a channel with {channel}: {why}.")


# ------------------------------------------------------------------------------------- assembly


def _assembled(flow: CylinderFlow, mesh: Mesh, step: float) -> Equations:
    try:
        from skfem import Basis, ElementTriP1, ElementTriP2, MeshTri
    except ModuleNotFoundError as error:
        raise ValueError(
            "Flows are solved by the package scikit-fem; install it with "
            "pip install 'retrograde[pde]'."
        ) from error
    triangulation = MeshTri(mesh.nodes.T.copy(), mesh.triangles.T.copy())
    quadratic = Basis(triangulation, ElementTriP2(), intorder=_DEGREE)
    linear = quadratic.with_element(ElementTriP1())
    matrices = _matrices(quadratic, linear)
    points = quadratic.doflocs.T.copy()
    return Equations(
        flow,
        mesh,
        step,
        points,
        triangulation.facets.T.copy(),
        matrices,
        _convection(quadratic),
        _solves(flow, mesh, step, points, matrices, _laplacian(linear)),
    )


_DEGREE = 5
"""Of the polynomials that are integrated exactly, which convection tested with P2 has."""


def _matrices(quadratic: Any, linear: Any) -> Matrices:
    from skfem import BilinearForm

    def inner(u: Any, v: Any, w: Any) -> Any:
        return u * v

    def slope(axis: int) -> Any:
        return BilinearForm(lambda u, v, w: u.grad[axis] * v)

    mass = BilinearForm(inner).assemble(quadratic).tocsr()
    divergence = tuple(slope(i).assemble(quadratic, linear).tocsr() for i in range(2))
    gradient = tuple(slope(i).assemble(linear, quadratic).tocsr() for i in range(2))
    return Matrices(
        mass, _laplacian(quadratic), (divergence[0], divergence[1]), (gradient[0], gradient[1])
    )


def _laplacian(basis: Any) -> Any:
    from skfem import BilinearForm

    def slopes(u: Any, v: Any, w: Any) -> Any:
        return u.grad[0] * v.grad[0] + u.grad[1] * v.grad[1]

    return BilinearForm(slopes).assemble(basis).tocsr()


def _solves(
    flow: CylinderFlow,
    mesh: Mesh,
    step: float,
    points: FloatArray,
    matrices: Matrices,
    poisson: Any,
) -> Solves:
    """With no slip on walls and cylinder, the inlet profile, and zero pressure at the outlet."""
    kinds = flow.channel.kinds(points)
    fixed = np.flatnonzero(~np.isin(kinds, (NodeKind.INTERIOR, NodeKind.OUTLET)))
    inlet = kinds[fixed] == NodeKind.INLET
    boundary = np.zeros((len(fixed), 2))
    boundary[inlet, 0] = flow.inlet(points[fixed[inlet], 1])
    viscous = flow.viscosity * matrices.stiffness
    momentum = 3 / (2 * step) * matrices.mass + viscous
    outlet = np.flatnonzero(flow.channel.at_outlet(mesh.nodes))
    return Solves(
        _factorised(momentum, fixed, boundary),
        _factorised(poisson, outlet, np.zeros(len(outlet))),
        _factorised(matrices.mass, fixed, boundary),
        lambda: _stokes(viscous, matrices.divergence, fixed, boundary),
    )


def _factorised(matrix: Any, fixed: IntArray, values: FloatArray) -> Solve:
    """Solves with the matrix, where some unknowns have Dirichlet values."""
    from scipy.sparse.linalg import splu

    free = np.setdiff1d(np.arange(matrix.shape[0]), fixed)
    rows = matrix[free]
    factors = splu(rows[:, free].tocsc())
    shift = rows[:, fixed] @ values

    def solve(known: FloatArray) -> FloatArray:
        found = np.empty_like(known)
        found[fixed] = values
        found[free] = factors.solve(known[free] - shift)
        return found

    return solve


def _stokes(
    viscous: Any, divergence: tuple[Any, ...], fixed: IntArray, boundary: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Velocity and pressure of the stationary Stokes problem, as one system."""
    from scipy.sparse import bmat

    x, y = divergence
    system = bmat([[viscous, None, -x.T], [None, viscous, -y.T], [-x, -y, None]]).tocsr()
    count = viscous.shape[0]
    both = np.concatenate([fixed, fixed + count])
    solve = _factorised(system, both, boundary.T.ravel())
    found = solve(np.zeros(system.shape[0]))
    return found[: 2 * count].reshape(2, count).T.copy(), found[2 * count :]


def _convection(basis: Any) -> Callable[[FloatArray], FloatArray]:
    """N: velocities [n2, 2] to ``int (u . grad) u_c phi_i`` [n2, 2]."""
    from scipy.sparse import csr_matrix

    values = [element[0] for element in basis.basis]
    phi = np.stack([np.asarray(value)[0] for value in values], axis=1)  # [Q, 6]
    # [T, 2 Q, 6]: the gradients of each element's basis at its quadrature points.
    slopes = np.stack([value.grad for value in values], axis=-1).transpose(1, 0, 2, 3)
    count, points, own = len(slopes), len(phi), phi.shape[1]
    slopes = np.ascontiguousarray(slopes).reshape(count, 2 * points, own)
    weighted = np.ascontiguousarray(basis.dx)[:, :, None]  # [T, Q, 1]
    nodes = basis.element_dofs.T  # [T, 6]
    ones, columns = np.ones(nodes.size), np.arange(nodes.size)
    gather = csr_matrix((ones, (nodes.ravel(), columns)), shape=(basis.N, nodes.size))

    def convect(velocity: FloatArray) -> FloatArray:
        local = velocity[nodes]  # [T, 6, 2]
        there = phi @ local  # [T, Q, 2]
        slope = (slopes @ local).reshape(count, 2, points, 2)
        along = there[..., :1] * slope[:, 0] + there[..., 1:] * slope[:, 1]
        tested = phi.T @ (weighted * along)  # [T, 6, 2]
        found: FloatArray = gather @ tested.reshape(-1, 2)
        return found

    return convect
