"""``text2pde simulate``: a data set of solutions."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from click import Choice

from samplers.cli.common.errors import Failure
from samplers.cli.common.output import prepare_folder
from samplers.cli.common.program import Options, argument, command, option
from samplers.cli.common.text import counted
from samplers.cli.common.values import (
    EDGE,
    IMAGE_COUNT,
    PATH,
    PERIODS,
    POSITIVE,
    WHOLE,
)

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
_HELD_OUT = """\
Take Reynolds numbers from 100 to 115, or buoyancies from 0.32 to 0.38 m/s^2, which training data
omit."""


class SimulateOptions(Options):
    """Which scenes are simulated, which frames are recorded, and who computes."""

    folder: Path = argument("FOLDER", type=PATH, help="Folder of the clips.")
    family: str = option(
        type=Choice(("cylinder", "smoke")),
        help="Flows past a cylinder, or smoke.",
        default="cylinder",
    )
    cases: int = option(type=IMAGE_COUNT, help="Number of scenes.", default=150)
    seed: int = option(type=WHOLE, help="Seed of the parameters.", default=0)
    held_out: bool = option(is_flag=True, help=_HELD_OUT)
    frames: int | None = option(
        type=POSITIVE,
        help="Frames of a clip.",
        show_default="96 of cylinders, 17 a period; 48 of smoke",
    )
    settling: float | None = option(
        type=PERIODS,
        help="Time before the first frame in units of D / U.",
        show_default="60",
        section="Cylinders",
    )
    edge: float | None = option(
        type=EDGE,
        help="Edge length of the mesh at the cylinder, in radii.",
        show_default="0.24",
        section="Cylinders",
    )
    workers: int | None = option(
        type=POSITIVE,
        help="Processes.",
        show_default="as many as there are cores",
        section="Computation",
        excludes=["--scheduler"],
    )
    scheduler: str | None = option(
        help="Address of a Dask cluster that sees the same folder.",
        metavar="ADDRESS",
        section="Computation",
    )


@command(_EXAMPLES)
def run(options: SimulateOptions) -> int:
    """Solve the equations for many scenes, one file each.

    Flows past a cylinder have a Reynolds number from 40 to 160, and a radius, a position of the
    cylinder and a mesh of their own; a core solves one in most of a minute. Smoke has a buoyancy
    from 0.2 to 0.5 m/s^2, a radius and a position; a core solves one in half a second. After an
    interruption the same command resumes.
    """
    from tqdm.auto import tqdm

    from text2pde.solver.dataset import Workers, simulate_dataset

    folder, workers = options.folder, Workers(options.workers, options.scheduler)
    prepare_folder(folder)
    scenes, simulator = (_smoke if options.family == "smoke" else _cylinders)(options)
    try:
        with tqdm(total=len(scenes), unit="case", disable=None) as bar:
            report = simulate_dataset(scenes, folder, simulator, workers, bar.update)
    except KeyboardInterrupt:
        raise Failure(
            f"Interrupted. {folder} has the cases that are done; the same command resumes.", 130
        ) from None
    for name, error in sorted(report.failed.items()):
        print(f"{name}: {error}", file=sys.stderr)
    existing = f", {report.kept} existed" if report.kept else ""
    print(f"{counted(report.made, 'case')} simulated{existing} -> {folder}")
    return 1 if report.failed else 0


def _cylinders(options: SimulateOptions) -> tuple[Sequence[Scene], Simulator]:
    from text2pde.solver.dataset import cylinder_simulator
    from text2pde.solver.meshing import DEFAULT_SIZES, MeshSizes
    from text2pde.solver.simulation import DEFAULT_RECORDING, Recording
    from text2pde.subject.cylinder import family

    sample = family.sample_held_out_flows if options.held_out else family.sample_flows
    settling = DEFAULT_RECORDING.settling if options.settling is None else options.settling
    recording = Recording(options.frames or DEFAULT_RECORDING.frames, settling=settling)
    sizes = MeshSizes(near=options.edge or DEFAULT_SIZES.near)
    flows = sample(family.CylinderFamily(), options.cases, options.seed)
    return flows, cylinder_simulator(recording, sizes)


def _smoke(options: SimulateOptions) -> tuple[Sequence[Scene], Simulator]:
    from text2pde.solver.dataset import smoke_simulator
    from text2pde.solver.simulation import DEFAULT_SMOKE_RECORDING, SmokeRecording
    from text2pde.subject.smoke import family

    if options.settling is not None or options.edge is not None:
        raise ValueError("--settling and --edge are for cylinders; omit them for smoke.")
    sample = family.sample_held_out_plumes if options.held_out else family.sample_plumes
    recording = SmokeRecording(options.frames or DEFAULT_SMOKE_RECORDING.frames)
    return sample(family.SmokeFamily(), options.cases, options.seed), smoke_simulator(recording)
