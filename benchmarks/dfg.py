"""The solver of text2pde on the benchmark DFG 2D-2: three meshes, two steps.

    python -m benchmarks.dfg

Flow around a cylinder at Re = 100 (Schaefer and Turek 1996). A case is measured once; the result is
stored in ``docs/benchmarks/dfg.json``.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.digits import ROOT, Kept
from benchmarks.report import table, write
from text2pde.solver.forces import coefficients, oscillation, strouhal
from text2pde.solver.meshing import MeshSizes, triangulate
from text2pde.solver.navier_stokes import discretise, longest_step
from text2pde.subject.cylinder.channel import Channel, CylinderFlow

KEPT = ROOT / "docs" / "benchmarks" / "dfg.json"
FLOW = CylinderFlow(Channel(x=0.2, y=0.2, radius=0.05, length=2.2), speed=1.0)
SECONDS, MEASURED = 8.0, 2.0
MESHES = {
    "coarse": MeshSizes(near=0.3, far=0.05, growth=0.2),
    "fine": MeshSizes(0.2, 0.035, 0.15),
    "finest": MeshSizes(0.15, 0.025, 0.12),
}
CASES = (("coarse", 1.0), ("coarse", 0.5), ("fine", 1.0), ("fine", 0.5), ("finest", 1.0))
"""Meshes, and shares of the step that is taken if none is named."""
INTERVALS = ("0.295 to 0.305", "3.22 to 3.24", "0.99 to 1.01")


@dataclass(frozen=True)
class Measured:
    """Coefficients over the last seconds, and what they cost."""

    nodes: int
    step: float
    strouhal: float
    drag: float
    lift: float
    divergence: float
    milliseconds: float


def measure(sizes: MeshSizes, share: float) -> dict[str, Any]:
    mesh = triangulate(FLOW.channel, sizes)
    step = share * longest_step(FLOW, mesh)
    equations = discretise(FLOW, mesh, step)
    state, forces, count = equations.start(), [], round(SECONDS / step)
    begun = time.process_time()
    for _ in range(count):
        state = equations.advance(state)
        forces.append(equations.force(state))
    spent = time.process_time() - begun
    last = coefficients(np.array(forces), FLOW)[-round(MEASURED / step) :]
    drag, lift = (oscillation(last[:, i], step) for i in range(2))
    # The divergence tested with linear elements, by the area that each has.
    divergence = np.abs(equations.divergence(state.velocity) / mesh.node_areas).max()
    return asdict(
        Measured(
            len(mesh.nodes),
            step,
            strouhal(lift.frequency, FLOW),
            drag.highest,
            lift.highest,
            float(divergence),
            spent / count * 1e3,
        )
    )


def main() -> None:
    kept = Kept(KEPT, f"{FLOW}, {SECONDS} s, {MESHES}")
    rows = []
    for name, share in tqdm(CASES, "cases"):
        found = Measured(**kept.get(f"{name} {share}", partial(measure, MESHES[name], share)))
        rows.append(
            [
                f"{found.nodes} nodes, steps of {found.step * 1e3:.2f} ms",
                f"{found.strouhal:.4f}",
                f"{found.drag:.3f}",
                f"{found.lift:.3f}",
                f"{found.divergence:.1e}",
                f"{found.milliseconds:.1f}",
            ]
        )
    rows.append(["published", *INTERVALS, "", ""])
    head = ["", "Strouhal number", "maximum drag coefficient", "maximum lift coefficient",
            "divergence, 1/s", "ms per step"]  # fmt: skip
    path = write(
        "dfg",
        "Flow solver on the benchmark DFG 2D-2",
        "Flow around a cylinder in a channel at a Reynolds number of 100 (Schäfer and Turek 1996), "
        f"over the last {MEASURED:g} of {SECONDS:g} seconds, started from the Stokes flow. The "
        "divergence is averaged over the triangles of a node, and the largest is given; speeds are "
        "near 1 m/s and the cylinder is 0.1 m wide. Times are CPU times of one core.",
        table(head, rows),
        "Written by `python -m benchmarks.dfg`.",
    )
    print(path.read_text())


if __name__ == "__main__":
    main()
