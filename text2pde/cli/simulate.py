"""``text2pde simulate``: flows around cylinders, as data."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm.auto import tqdm

from samplers.cli.arguments import Commands, add_command
from samplers.cli.failure import Failure
from samplers.cli.text import counted
from samplers.cli.values import not_negative, positive, positive_number, whole

_EPILOG = """\
examples:
  text2pde simulate data/cylinder --cases 150
  text2pde simulate data/held-out --cases 12 --held-out
  text2pde simulate data/cylinder --cases 2000 --scheduler tcp://10.0.0.1:8786

Every case has a Reynolds number from 40 to 160, a radius, a place of the cylinder and a mesh of its
own, and is one file in the format of safetensors. Reynolds numbers from 100 to 115 are held out,
and are what --held-out simulates. It takes half a minute a case on one core.
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``simulate``."""
    parser = add_command(
        commands, "simulate", "solve for flows around cylinders, one file a case", _EPILOG
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of the files")
    parser.add_argument("--cases", type=positive, default=150, metavar="N", help="[150]")
    parser.add_argument("--seed", type=whole, default=0, metavar="N", help="of the family [0]")
    parser.add_argument(
        "--held-out", action="store_true", help="the Reynolds numbers that training never sees"
    )
    parser.add_argument(
        "--frames", type=positive, default=96, metavar="N", help="of a clip, some 17 a period [96]"
    )
    parser.add_argument(
        "--settling",
        type=not_negative,
        default=60.0,
        metavar="T",
        help="before the first frame, in diameters that the inlet's fluid goes [60]",
    )
    parser.add_argument(
        "--edge",
        type=positive_number,
        default=0.24,
        metavar="E",
        help="of triangles at the cylinder, in its radii; smaller is more exact [0.24]",
    )
    group = parser.add_argument_group("how to run")
    where = group.add_mutually_exclusive_group()
    where.add_argument(
        "--workers", type=positive, metavar="N", help="processes [as many as there are cores]"
    )
    where.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a Dask cluster that sees the same folder"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Simulate what is not there yet; returns the exit code."""
    # The solver's packages take seconds to import, and --help needs none of them.
    from text2pde.flows.cylinder import Family, draw, draw_held_out
    from text2pde.flows.generate import Workers, generate
    from text2pde.flows.simulate import Recording
    from text2pde.solver.meshing import Sizes

    flows = (draw_held_out if arguments.held_out else draw)(
        Family(), arguments.cases, arguments.seed
    )
    try:
        with tqdm(total=len(flows), unit="case", disable=None) as bar:
            outcome = generate(
                flows,
                arguments.folder,
                Recording(frames=arguments.frames, settling=arguments.settling),
                Sizes(near=arguments.edge),
                Workers(arguments.workers, arguments.scheduler),
                bar.update,
            )
    except KeyboardInterrupt:
        raise Failure(
            f"Interrupted. {arguments.folder} keeps what is done; the same command goes on.", 130
        ) from None
    for name, why in sorted(outcome.failed.items()):
        print(f"{name}: {why}", file=sys.stderr)
    kept = f", {outcome.kept} kept from before" if outcome.kept else ""
    print(f"{counted(outcome.made, 'case')} simulated{kept} -> {arguments.folder}")
    return 1 if outcome.failed else 0
