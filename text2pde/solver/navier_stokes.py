r"""The incompressible Navier-Stokes equations in a channel, by finite elements.

.. math:: \partial_t u + (u \cdot \nabla) u = -\nabla p + \nu \Delta u, \qquad \nabla \cdot u = 0

Velocities are quadratic on each triangle and pressures linear (Taylor and Hood 1973), both
continuous. A step of length h is one of incremental pressure correction (Goda 1979; Guermond,
Minev and Shen 2006, section 3.2) with backward differences of second order:

.. math::
    \frac{3 \tilde u - 4 u^n + u^{n-1}}{2h} + 2 N(u^n) - N(u^{n-1})
        &= -\nabla p^n + \nu \Delta \tilde u \\
    \Delta \varphi = \frac{3}{2h} \nabla \cdot \tilde u, \qquad
    p^{n+1} = p^n + \varphi, \qquad u^{n+1} &= \tilde u - \frac{2h}{3} \nabla \varphi

Convection N is explicit, so that three matrices are factored once for a flow, and the length of
the step is bounded by that of the shortest way across a triangle. The density is 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from text2pde.channel import Flow
from text2pde.mesh import Integers, Kind, Mesh, Numbers, check_mesh

Solve = Callable[[Numbers], Numbers]
"""Right-hand sides [n, ...] to solutions."""

SAFETY = 0.25
"""Of the longest step, in shortest ways across a triangle at the fastest speed."""


class State(NamedTuple):
    """A flow at a time.

    Attributes:
        time: in seconds.
        velocity: at the nodes of quadratic elements [n2, 2], in m/s; convection: N of it, tested.
        pressure: at the nodes of the mesh [N], by density, in m^2/s^2.
        older: velocity and convection one step before.
    """

    time: float
    velocity: Numbers
    convection: Numbers
    pressure: Numbers
    older: tuple[Numbers, Numbers]


class DivergedError(ArithmeticError):
    """A flow whose numbers grew without bound: its steps were too long."""


@dataclass(frozen=True)
class Equations:
    """The discrete equations of a flow on a mesh, with steps of one length.

    Attributes:
        places: of the nodes of quadratic elements [n2, 2], those of the mesh first.
        sides: the nodes at the ends of the edges that the others halve [n2 - N, 2].
    """

    flow: Flow
    mesh: Mesh
    step: float
    places: Numbers
    sides: Integers
    mass: Any
    stiffness: Any
    divergences: tuple[Any, Any]
    gradients: tuple[Any, Any]
    convect: Callable[[Numbers], Numbers]
    momentum: Solve
    correction: Solve
    projection: Solve
    stokes: Callable[[], tuple[Numbers, Numbers]]

    def start(self) -> State:
        """The steady flow without convection."""
        velocity, pressure = self.stokes()
        convection = self.convect(velocity)
        return State(0.0, velocity, convection, pressure, (velocity, convection))

    def start_from(self, fields: Numbers) -> State:
        """A flow whose velocity and pressure are known at the nodes of the mesh, [N, 3].

        The velocity is linear along edges there, and as free of divergence as it was given; the
        first step makes it entirely so.
        """
        at_nodes = fields[:, :2]
        velocity = np.concatenate([at_nodes, at_nodes[self.sides].mean(axis=1)])
        convection = self.convect(velocity)
        return State(0.0, velocity, convection, fields[:, 2].copy(), (velocity, convection))

    def advance(self, state: State) -> State:
        """The flow a step later."""
        h, older = self.step, state.older
        known = self.mass @ (4 * state.velocity - older[0]) / (2 * h)
        known -= 2 * state.convection - older[1]
        known += self._transposed(state.pressure)
        trial = self.momentum(known)
        change = self.correction(-3 / (2 * h) * self.divergence(trial))
        slope = np.stack([g @ change for g in self.gradients], axis=1)
        velocity = self.projection(self.mass @ trial - 2 * h / 3 * slope)
        return State(
            state.time + h,
            velocity,
            self.convect(velocity),
            state.pressure + change,
            (state.velocity, state.convection),
        )

    def divergence(self, velocity: Numbers) -> Numbers:
        """The divergence tested with each linear element [N]."""
        found: Numbers = sum(d @ velocity[:, i] for i, d in enumerate(self.divergences))
        return found

    def fields(self, state: State) -> Numbers:
        """Velocity and pressure at the nodes of the mesh, [N, 3]."""
        count = len(self.mesh.nodes)
        return np.concatenate([state.velocity[:count], state.pressure[:, None]], axis=1)

    def force(self, state: State) -> Numbers:
        r"""What the flow does to the cylinder, drag and lift [2], in N/m by density.

        By the momentum equation tested with the field that is 1 on the cylinder alone, which
        converges faster than the integral of the stress.
        """
        older = state.older[0]
        change = (state.velocity - older) / self.step
        residual = self.mass @ change + state.convection
        residual += self.flow.viscosity * (self.stiffness @ state.velocity)
        residual -= self._transposed(state.pressure)
        cylinder = self.flow.channel.kinds(self.places) == Kind.CYLINDER
        force: Numbers = -residual[cylinder].sum(axis=0)
        return force

    def _transposed(self, pressure: Numbers) -> Numbers:
        return np.stack([d.T @ pressure for d in self.divergences], axis=1)


def longest_step(flow: Flow, mesh: Mesh) -> float:
    """A step with which flows like this one are stable: a quarter of the time in which the fastest
    fluid, some twice the mean at the inlet, crosses the flattest triangle."""
    return SAFETY * float(mesh.heights.min()) / (2 * flow.speed)


def discretise(flow: Flow, mesh: Mesh, step: float | None = None) -> Equations:
    """The equations of a flow on a mesh of its channel.

    Args:
        step: in seconds; :func:`longest_step` if None.

    Raises ValueError without the package scikit-fem, for a mesh that is not one of the flow's
    channel, and for a step that is not positive.
    """
    step = longest_step(flow, mesh) if step is None else step
    if not 0 < step < np.inf:
        raise ValueError(f"The step is {step} s; it must be positive and finite.")
    check_mesh(mesh)
    _check_channel(flow, mesh)
    return _assembled(flow, mesh, step)


def _check_channel(flow: Flow, mesh: Mesh) -> None:
    channel = flow.channel
    kinds = channel.kinds(mesh.nodes)
    missing = [kind.name.lower() for kind in Kind if not (kinds == kind).any()]
    outside = (mesh.nodes.min() < -1e-6) or (
        mesh.nodes.max(axis=0) > np.array([channel.length, channel.height]) + 1e-6
    ).any()
    if missing or outside or not np.array_equal(kinds, mesh.kinds):
        why = f"it has no node of the {missing[0]}" if missing else "its nodes lie elsewhere"
        raise ValueError(f"The mesh is not one of a channel with {channel}: {why}.")


# -------------------------------------------------------------------------------- the matrices


def _assembled(flow: Flow, mesh: Mesh, step: float) -> Equations:
    try:
        from skfem import Basis, BilinearForm, ElementTriP1, ElementTriP2, MeshTri
    except ModuleNotFoundError as error:
        raise ValueError(
            "Flows are solved by the package scikit-fem; install it with "
            "pip install 'retrograde[pde]'."
        ) from error
    triangles = MeshTri(mesh.nodes.T.copy(), mesh.triangles.T.copy())
    quadratic = Basis(triangles, ElementTriP2(), intorder=_DEGREE)
    linear = quadratic.with_element(ElementTriP1())

    def inner(u: Any, v: Any, w: Any) -> Any:
        return u * v

    def slopes(u: Any, v: Any, w: Any) -> Any:
        return u.grad[0] * v.grad[0] + u.grad[1] * v.grad[1]

    def slope(axis: int) -> Any:
        return BilinearForm(lambda u, v, w: u.grad[axis] * v)

    mass = BilinearForm(inner).assemble(quadratic).tocsr()
    stiffness = BilinearForm(slopes).assemble(quadratic).tocsr()
    divergences = tuple(slope(i).assemble(quadratic, linear).tocsr() for i in range(2))
    gradients = tuple(slope(i).assemble(linear, quadratic).tocsr() for i in range(2))
    places = quadratic.doflocs.T.copy()
    kinds = flow.channel.kinds(places)
    fixed = np.flatnonzero(~np.isin(kinds, (Kind.INTERIOR, Kind.OUTLET)))
    inlet = kinds[fixed] == Kind.INLET
    walls = np.zeros((len(fixed), 2))
    walls[inlet, 0] = flow.inlet(places[fixed[inlet], 1])
    momentum = 3 / (2 * step) * mass + flow.viscosity * stiffness
    poisson = BilinearForm(slopes).assemble(linear).tocsr()
    outlet = np.flatnonzero(flow.channel.leaves(mesh.nodes))
    return Equations(
        flow,
        mesh,
        step,
        places,
        triangles.facets.T.copy(),
        mass,
        stiffness,
        (divergences[0], divergences[1]),
        (gradients[0], gradients[1]),
        _convection(quadratic),
        _factored(momentum, fixed, walls),
        _factored(poisson, outlet, np.zeros(len(outlet))),
        _factored(mass, fixed, walls),
        lambda: _stokes(flow.viscosity * stiffness, divergences, fixed, walls),
    )


_DEGREE = 5
"""Of the polynomials that are integrated exactly: convection tested is of this degree."""


def _factored(matrix: Any, fixed: Integers, values: Numbers) -> Solve:
    """Solves with the matrix, where some unknowns have values."""
    from scipy.sparse.linalg import splu

    free = np.setdiff1d(np.arange(matrix.shape[0]), fixed)
    rows = matrix[free]
    factors = splu(rows[:, free].tocsc())
    shift = rows[:, fixed] @ values

    def solve(known: Numbers) -> Numbers:
        found = np.empty_like(known)
        found[fixed] = values
        found[free] = factors.solve(known[free] - shift)
        return found

    return solve


def _stokes(
    viscous: Any, divergences: tuple[Any, ...], fixed: Integers, walls: Numbers
) -> tuple[Numbers, Numbers]:
    """Velocity and pressure of the steady flow without convection, of one system."""
    from scipy.sparse import bmat

    x, y = divergences
    system = bmat([[viscous, None, -x.T], [None, viscous, -y.T], [-x, -y, None]]).tocsr()
    count = viscous.shape[0]
    both = np.concatenate([fixed, fixed + count])
    solve = _factored(system, both, walls.T.ravel())
    found = solve(np.zeros(system.shape[0]))
    return found[: 2 * count].reshape(2, count).T.copy(), found[2 * count :]


def _convection(basis: Any) -> Callable[[Numbers], Numbers]:
    """``u -> (int (u . grad) u_c phi_i)``, [n2, 2] to [n2, 2]."""
    from scipy.sparse import csr_matrix

    values = [element[0] for element in basis.basis]
    phi = np.stack([np.asarray(value)[0] for value in values], axis=1)  # [Q, 6]
    # [T, 2 Q, 6]: both slopes of each element's functions at its points.
    slopes = np.stack([value.grad for value in values], axis=-1).transpose(1, 0, 2, 3)
    count, points, own = len(slopes), len(phi), phi.shape[1]
    slopes = np.ascontiguousarray(slopes).reshape(count, 2 * points, own)
    weighted = np.ascontiguousarray(basis.dx)[:, :, None]  # [T, Q, 1]
    nodes = basis.element_dofs.T  # [T, 6]
    ones, places = np.ones(nodes.size), np.arange(nodes.size)
    gather = csr_matrix((ones, (nodes.ravel(), places)), shape=(basis.N, nodes.size))

    def convect(velocity: Numbers) -> Numbers:
        local = velocity[nodes]  # [T, 6, 2]
        there = phi @ local  # [T, Q, 2]
        slope = (slopes @ local).reshape(count, 2, points, 2)
        along = there[..., :1] * slope[:, 0] + there[..., 1:] * slope[:, 1]
        tested = phi.T @ (weighted * along)  # [T, 6, 2]
        found: Numbers = gather @ tested.reshape(-1, 2)
        return found

    return convect
