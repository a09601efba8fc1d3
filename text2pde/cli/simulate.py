"""``text2pde simulate``: a data set of solutions."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from samplers.cli.common.errors import Failure
from samplers.cli.common.output import prepare_folder
from samplers.cli.common.program import Options, argument, command, option
from samplers.cli.common.text import counted
from samplers.cli.common.values import NOT_NEGATIVE, PATH, POSITIVE, POSITIVE_NUMBER, WHOLE

if TYPE_CHECKING:
    from text2pde.solver.dataset import Simulator
    from text2pde.subject import Scene

_EXAMPLES = """\
Examples:
  text2pde simulate data/cylinder --cases 150
  text2pde simulate data/held-out --cases 12 --held-out
  text2pde simulate data/smoke --family smoke --cases 400
  text2pde simulate data/cylinder --cases 2000 --scheduler tcp://10.0.0.1:8786
"""


class FamilyOptions(Options, section="Scenes"):
    """Which scenes are simulated, and which frames are recorded."""

    family: str = option(
        "--family",
        type=click.Choice(("cylinder", "smoke")),
        default="cylinder",
        help="Flows past a cylinder, or rising smoke.",
    )
    cases: int = option("--cases", type=POSITIVE, default=150, help="Number of scenes.")
    seed: int = option("--seed", type=WHOLE, default=0, help="Seed of the parameters.")
    held_out: bool = option(
        "--held-out",
        is_flag=True,
        help="Take Reynolds numbers from 100 to 115, or buoyancies from 0.32 to 0.38 m/s^2, which "
        "training data omit.",
    )
    frames: int | None = option(
        "--frames",
        type=POSITIVE,
        help="Of a clip.",
        show_default="96 of cylinders, 17 a period; 48 of smoke",
    )
    settling: float | None = option(
        "--settling",
        type=NOT_NEGATIVE,
        metavar="T",
        help="Time before the first frame in units of D / U; for cylinders.",
        show_default="60",
    )
    edge: float | None = option(
        "--edge",
        type=POSITIVE_NUMBER,
        metavar="E",
        help="Edge length of the mesh at the cylinder in radii; for cylinders.",
        show_default="0.24",
    )

    def scenes(self) -> tuple[Sequence[Scene], Simulator]:
        """The scenes, and how they are simulated."""
        return self._smoke() if self.family == "smoke" else self._cylinders()

    def _cylinders(self) -> tuple[Sequence[Scene], Simulator]:
        from text2pde.solver.dataset import cylinder_simulator
        from text2pde.solver.meshing import DEFAULT_SIZES, MeshSizes
        from text2pde.solver.simulation import DEFAULT_RECORDING, Recording
        from text2pde.subject.cylinder.family import (
            CylinderFamily,
            sample_flows,
            sample_held_out_flows,
        )

        sampled = sample_held_out_flows if self.held_out else sample_flows
        settling = DEFAULT_RECORDING.settling if self.settling is None else self.settling
        recording = Recording(frames=self.frames or DEFAULT_RECORDING.frames, settling=settling)
        sizes = MeshSizes(near=self.edge or DEFAULT_SIZES.near)
        flows = sampled(CylinderFamily(), self.cases, self.seed)
        return flows, cylinder_simulator(recording, sizes)

    def _smoke(self) -> tuple[Sequence[Scene], Simulator]:
        from text2pde.solver.dataset import smoke_simulator
        from text2pde.solver.simulation import DEFAULT_SMOKE_RECORDING, SmokeRecording
        from text2pde.subject.smoke.family import (
            SmokeFamily,
            sample_held_out_plumes,
            sample_plumes,
        )

        if self.settling is not None or self.edge is not None:
            raise ValueError("--settling and --edge are for cylinders; omit them for smoke.")
        sampled = sample_held_out_plumes if self.held_out else sample_plumes
        recording = SmokeRecording(frames=self.frames or DEFAULT_SMOKE_RECORDING.frames)
        return sampled(SmokeFamily(), self.cases, self.seed), smoke_simulator(recording)


@command(_EXAMPLES)
def run(
    *,
    folder: Path = argument("FOLDER", type=PATH),
    family: FamilyOptions,
    workers: int | None = option(
        "--workers",
        section="Computation",
        type=POSITIVE,
        excludes=["--scheduler"],
        help="Processes.",
        show_default="as many as there are cores",
    ),
    scheduler: str | None = option(
        "--scheduler",
        section="Computation",
        metavar="ADDRESS",
        help="Address of a Dask cluster that sees the same folder.",
    ),
) -> int:
    """Solve the equations for many scenes, one file each.

    Flows past a cylinder have a Reynolds number from 40 to 160, and a radius, a position of the
    cylinder and a mesh of their own; a core solves one in most of a minute. Smoke has a buoyancy
    from 0.2 to 0.5 m/s^2, a radius and a position; a core solves one in half a second.
    """
    from tqdm.auto import tqdm

    from text2pde.solver.dataset import Workers, simulate_dataset

    prepare_folder(folder)
    scenes, simulator = family.scenes()
    try:
        with tqdm(total=len(scenes), unit="case", disable=None) as bar:
            report = simulate_dataset(
                scenes, folder, simulator, Workers(workers, scheduler), bar.update
            )
    except KeyboardInterrupt:
        raise Failure(
            f"Interrupted. {folder} has the cases that are done; the same command resumes.", 130
        ) from None
    for name, error in sorted(report.failed.items()):
        print(f"{name}: {error}", file=sys.stderr)
    existing = f", {report.kept} existed" if report.kept else ""
    print(f"{counted(report.made, 'case')} simulated{existing} -> {folder}")
    return 1 if report.failed else 0
