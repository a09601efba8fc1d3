"""``samplers show``: a sampler's equation, reference, options and tableau."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from click import Choice

from samplers.cli.common.options import GridOptions, SchedulerOptions
from samplers.cli.common.program import argument, changed, command, option
from samplers.cli.common.values import PATH, POSITIVE, SAMPLER

if TYPE_CHECKING:
    from samplers.grid import Final
    from samplers.registry import Sampler
    from samplers.schedule import Schedule
    from samplers.tableau import Tableau

# The name on the command line, and what makes it in samplers.schedule.
_SCHEDULES = {
    "vp-linear": "VPLinear",
    "vp-scaled-linear": "VPScaledLinear",
    "vp-cosine": "VPCosine",
    "ddpm": "VPDiscrete.linear",
    "stable-diffusion": "VPDiscrete.scaled_linear",
    "sub-vp": "SubVP",
    "ve": "VE",
    "edm": "EDM",
    "flow": "FlowMatching",
}

_EXAMPLES = """
Examples:
  samplers show dpmpp-2m --steps 5
  samplers show heun --steps 3 --schedule edm --grid karras
  samplers show ancestral --steps 10 --option eta=0.5 --json
"""


class ShowOptions(GridOptions, section="Tableau"):
    name: str = argument("NAME", type=SAMPLER, help="Name of a sampler, or an alias.")
    steps: int = option(type=POSITIVE, help="Number of steps.", default=5)
    options: tuple[str, ...] = changed(SchedulerOptions, "options")
    schedule: str = option(
        type=Choice(_SCHEDULES),
        help=f"Noise schedule: {', '.join(_SCHEDULES)}.",
        metavar="NAME",
        default="vp-linear",
    )
    checkpoint: Path | None = option(
        type=PATH,
        help="Folder that diffusers saved, with the noise schedule.",
        metavar="FOLDER",
        excludes=["--schedule"],
    )
    json: bool = option(is_flag=True, help="Print the tableau only, as JSON with all digits.")


@command(_EXAMPLES)
def run(options: ShowOptions) -> None:
    """Show a sampler: its equation, reference, options and tableau."""
    from samplers.registry import AdaptiveSampler, get_sampler

    sampler = get_sampler(options.name)
    adaptive = isinstance(sampler, AdaptiveSampler)
    if adaptive and options.json:
        raise ValueError(f"{sampler.name!r} has adaptive step sizes, so it has no tableau to show.")
    if options.json:
        print(_tableau(options, sampler).to_json())
        return
    steps = _adaptive_note(sampler.name) if adaptive else f"{_NOTE}\n{_tableau(options, sampler)}"
    print(sampler.description, steps, sep="\n\n")


_NOTE = "x[k], D[k]: the k-th newest point and prediction of x_0; z: fresh noise."


def _adaptive_note(name: str) -> str:
    return (
        "The step size adapts to each image, so there is no tableau: "
        f"`samplers sample CHECKPOINT --sampler {name} --tolerance 0.01`."
    )


def _tableau(options: ShowOptions, sampler: Sampler) -> Tableau:
    from samplers.choices import DEFAULT_SPACING
    from samplers.cli.common.checkpoints import sampler_options
    from samplers.grid import make_grid

    schedule, final = _schedule(options)
    grid = make_grid(
        schedule,
        options.steps,
        options.grid or DEFAULT_SPACING,
        sigma_min=options.sigma_min,
        sigma_max=options.sigma_max,
        final=options.final or final,
    )
    return sampler.tableau(grid, sampler_options(sampler.name, options.options))


def _schedule(options: ShowOptions) -> tuple[Schedule, Final]:
    """The noise schedule, and the default end of its grids."""
    if options.checkpoint is None:
        from samplers import schedule

        made: Any = schedule
        for part in _SCHEDULES[options.schedule].split("."):
            made = getattr(made, part)
        return made(), "zero"
    from samplers.checkpoint import read_settings

    settings = read_settings(options.checkpoint)
    return settings.schedule, settings.final
