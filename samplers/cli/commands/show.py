"""``samplers show``: the numbers that a sampler consists of."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from samplers import schedule
from samplers.cli.arguments import Commands, add_command, add_grid_arguments, add_option_argument
from samplers.cli.choices import chosen_options
from samplers.cli.failure import Failure
from samplers.cli.values import any_sampler_name, positive
from samplers.grid import Final, default_spacing, make_grid
from samplers.registry import Sampler, get_sampler, list_adaptive
from samplers.schedule import Schedule
from samplers.tableau import Tableau

_SCHEDULES: dict[str, Callable[[], Schedule]] = {
    "vp-linear": schedule.VPLinear,
    "vp-scaled-linear": schedule.VPScaledLinear,
    "vp-cosine": schedule.VPCosine,
    "ddpm": schedule.VPDiscrete.linear,
    "stable-diffusion": schedule.VPDiscrete.scaled_linear,
    "sub-vp": schedule.SubVP,
    "ve": schedule.VE,
    "edm": schedule.EDM,
    "flow": schedule.FlowMatching,
}

_EPILOG = """\
examples:
  samplers show dpmpp-2m --steps 5
  samplers show heun --steps 3 --schedule edm --grid karras
  samplers show ancestral --steps 10 --option eta=0.5 --json
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``show``."""
    parser = add_command(commands, "show", "print the numbers that a sampler consists of", _EPILOG)
    parser.add_argument(
        "name", type=any_sampler_name, metavar="NAME", help="of a sampler, or an alias"
    )
    parser.add_argument("--steps", type=positive, default=5, metavar="N", help="[5]")
    add_option_argument(parser)
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--schedule", choices=_SCHEDULES, default="vp-linear", help="noise schedule [vp-linear]"
    )
    source.add_argument("--checkpoint", type=Path, help="a diffusers folder with the schedule")
    parser.add_argument("--json", action="store_true", help="as JSON, with all digits")
    add_grid_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a tableau."""
    if arguments.name in list_adaptive():
        raise ValueError(
            f"{arguments.name!r} chooses its own steps for every image, so it has no table; "
            f"`samplers sample CHECKPOINT --sampler {arguments.name} --tolerance 0.01` draws by it."
        )
    sampler = get_sampler(arguments.name)
    schedule, final = _noise(arguments)
    grid = make_grid(
        schedule,
        arguments.steps,
        arguments.grid or default_spacing(schedule),
        sigma_min=arguments.sigma_min,
        sigma_max=arguments.sigma_max,
        final=arguments.final or final,
    )
    tableau = sampler.tableau(grid, chosen_options(sampler.name, arguments.option))
    print(tableau.to_json() if arguments.json else f"{_head(sampler, tableau)}\n\n{tableau}")
    return 0


def _noise(arguments: argparse.Namespace) -> tuple[Schedule, Final]:
    """The schedule, and where its grids end if nothing else is asked for."""
    if arguments.checkpoint is None:
        return _SCHEDULES[arguments.schedule](), "zero"
    # diffusers takes seconds to import.
    from samplers.checkpoint import CheckpointError, read_settings

    try:
        settings = read_settings(arguments.checkpoint)
    except CheckpointError as error:
        raise Failure(str(error)) from error
    return settings.schedule, settings.final


def _head(sampler: Sampler, tableau: Tableau) -> str:
    noise = "draws noise" if tableau.stochastic else "draws no noise"
    lines = [f"{sampler.name}: order {sampler.order:g}, {noise}", f"  {sampler.reference}"]
    if sampler.aliases:
        lines.append(f"  also known as {', '.join(sampler.aliases)}")
    if sampler.options:
        settings = ", ".join(f"{name}={value}" for name, value in sampler.options.items())
        lines.append(f"  options and their defaults: {settings}")
    lines.append("  x[k], D[k]: the k-th newest point and prediction of x_0; z: fresh noise")
    return "\n".join(lines)
