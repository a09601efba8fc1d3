"""``text2pde simulate``: flows around cylinders, or smoke, as data."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from samplers.cli.arguments import Commands, add_command
from samplers.cli.failure import Failure
from samplers.cli.text import counted
from samplers.cli.values import not_negative, positive, positive_number, whole

if TYPE_CHECKING:
    from text2pde.flows.generate import Maker
    from text2pde.scene import Scene

_EPILOG = """\
examples:
  text2pde simulate data/cylinder --cases 150
  text2pde simulate data/held-out --cases 12 --held-out
  text2pde simulate data/smoke --family smoke --cases 400
  text2pde simulate data/cylinder --cases 2000 --scheduler tcp://10.0.0.1:8786

Every case has a Reynolds number from 40 to 160, a radius, a place of the cylinder and a mesh of its
own, and is one file in the format of safetensors. Reynolds numbers from 100 to 115 are held out,
and are what --held-out simulates. It takes most of a minute a case on one core.

Smoke rises in a box with a buoyancy from 0.2 to 0.5 m/s^2, from clouds of several sizes and places;
buoyancies from 0.32 to 0.38 are held out. It takes half a second a case.
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``simulate``."""
    parser = add_command(commands, "simulate", "solve for flows, one file a case", _EPILOG)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of the files")
    parser.add_argument(
        "--family", choices=("cylinder", "smoke"), default="cylinder", help="[cylinder]"
    )
    parser.add_argument("--cases", type=positive, default=150, metavar="N", help="[150]")
    parser.add_argument("--seed", type=whole, default=0, metavar="N", help="of the family [0]")
    parser.add_argument(
        "--held-out",
        action="store_true",
        help="the Reynolds numbers, or buoyancies, that training never sees",
    )
    parser.add_argument(
        "--frames",
        type=positive,
        metavar="N",
        help="of a clip [96 of a cylinder, some 17 a period; 48 of smoke]",
    )
    group = parser.add_argument_group("of cylinders")
    group.add_argument(
        "--settling",
        type=not_negative,
        metavar="T",
        help="before the first frame, in diameters that the inlet's fluid goes [60]",
    )
    group.add_argument(
        "--edge",
        type=positive_number,
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
    from samplers.cli.output import prepare_folder
    from text2pde.flows.generate import Workers, generate

    prepare_folder(arguments.folder)
    flows, maker = (_smoke if arguments.family == "smoke" else _cylinders)(arguments)
    try:
        with tqdm(total=len(flows), unit="case", disable=None) as bar:
            outcome = generate(
                flows,
                arguments.folder,
                maker,
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


def _cylinders(arguments: argparse.Namespace) -> tuple[Sequence[Scene], Maker]:
    from text2pde.flows.cylinder import Family, draw, draw_held_out
    from text2pde.flows.generate import channel_maker
    from text2pde.flows.simulate import CLIP, Recording
    from text2pde.solver.meshing import DEFAULT, Sizes

    drawn = draw_held_out if arguments.held_out else draw
    settling = CLIP.settling if arguments.settling is None else arguments.settling
    recording = Recording(frames=arguments.frames or CLIP.frames, settling=settling)
    sizes = Sizes(near=arguments.edge or DEFAULT.near)
    return drawn(Family(), arguments.cases, arguments.seed), channel_maker(recording, sizes)


def _smoke(arguments: argparse.Namespace) -> tuple[Sequence[Scene], Maker]:
    from text2pde.flows.generate import smoke_maker
    from text2pde.flows.smoke import (
        SMOKE,
        SmokeFamily,
        SmokeRecording,
        draw_held_out_smoke,
        draw_smoke,
    )

    if arguments.settling is not None or arguments.edge is not None:
        raise ValueError("--settling and --edge are of cylinders; leave them away for smoke.")
    drawn = draw_held_out_smoke if arguments.held_out else draw_smoke
    recording = SmokeRecording(frames=arguments.frames or SMOKE.frames)
    return drawn(SmokeFamily(), arguments.cases, arguments.seed), smoke_maker(recording)
