"""``samplers show``: a sampler's equation, reference, options and tableau."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click import Choice

from samplers.choices import DEFAULT_SPACING
from samplers.cli.common.options import GridOptions, SchedulerOptions
from samplers.cli.common.program import argument, changed, command, option
from samplers.cli.common.values import PATH, POSITIVE, SAMPLER

if TYPE_CHECKING:
    from samplers.grid import Grid
    from samplers.registry import Sampler
    from samplers.schedule import Schedule
    from samplers.tableau import Tableau
    from samplers.tuning import TunedSampler

_STEPS, _SCHEDULE = 5, "vp-linear"
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
  samplers show tuned/digits-5.json --checkpoint assets/digits
"""


class ShowOptions(GridOptions, section="Tableau"):
    name: str = argument(
        "NAME", type=SAMPLER, help="Name of a sampler, or an alias; or the file of a tuned one."
    )
    steps: int | None = option(type=POSITIVE, help="Number of steps.", show_default=f"{_STEPS}")
    options: tuple[str, ...] = changed(SchedulerOptions, "options")
    schedule: str | None = option(
        type=Choice(_SCHEDULES),
        help=f"Noise schedule: {', '.join(_SCHEDULES)}.",
        metavar="NAME",
        show_default=_SCHEDULE,
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
    from samplers.cli.common.tuned import tuned_of
    from samplers.registry import AdaptiveSampler, get_sampler

    tuned = tuned_of(options, options.name)
    if tuned is not None:
        _show_tuned(options, tuned)
        return
    sampler = get_sampler(options.name)
    adaptive = isinstance(sampler, AdaptiveSampler)
    if adaptive and options.json:
        raise ValueError(f"{sampler.name!r} has adaptive step sizes, so it has no tableau to show.")
    if options.json:
        print(_tableau(options, sampler).to_json())
        return
    steps = _adaptive_note(sampler.name) if adaptive else f"{_NOTE}\n{_tableau(options, sampler)}"
    print(sampler.description, steps, sep="\n\n")


def _show_tuned(options: ShowOptions, tuned: TunedSampler) -> None:
    """Print what a tuned sampler is, and its tableau on a schedule, if one is named."""
    named = options.schedule is not None or options.checkpoint is not None
    if options.json and not named:
        raise ValueError(
            "The tableau of a tuned sampler is that of a schedule; pass --checkpoint or --schedule."
        )
    if options.json:
        print(tuned.tableau(_schedule(options)).to_json())
        return
    rows = f"\n\n{_NOTE}\n{tuned.tableau(_schedule(options))}" if named else ""
    print(tuned.description + rows)


_NOTE = "x[k], D[k]: the k-th newest point and prediction of x_0; z: fresh noise."


def _adaptive_note(name: str) -> str:
    return (
        "The step size adapts to each image, so there is no tableau: "
        f"`samplers sample CHECKPOINT --sampler {name} --tolerance 0.01`."
    )


def _tableau(options: ShowOptions, sampler: Sampler) -> Tableau:
    from samplers.cli.common.checkpoints import fitted_grid, sampler_options
    from samplers.sampling import grid_for

    fitted = fitted_grid(options)
    if fitted is not None:
        on = grid_for(sampler.name, _schedule(options), options.steps, fitted)
    elif options.checkpoint is None:
        on = _grid(options)
    else:
        on = _grid_of(options, options.checkpoint)
    return sampler.tableau(on, sampler_options(sampler.name, options.options))


def _schedule(options: ShowOptions) -> Schedule:
    """The noise schedule, by its name or of a checkpoint."""
    from samplers import schedule
    from samplers.checkpoint import read_settings

    if options.checkpoint is not None:
        return read_settings(options.checkpoint).schedule
    made: Any = schedule
    for part in _SCHEDULES[options.schedule or _SCHEDULE].split("."):
        made = getattr(made, part)
    found: Schedule = made()
    return found


def _grid(options: ShowOptions) -> Grid:
    """The grid on a noise schedule by its name."""
    from samplers.grid import make_grid

    if options.grid == "config":
        raise ValueError(
            "--grid config is the grid of a checkpoint's scheduler, and there is none; pass "
            "--checkpoint, or a spacing."
        )
    return make_grid(
        _schedule(options),
        options.steps or _STEPS,
        options.grid or DEFAULT_SPACING,
        sigma_min=options.sigma_min,
        sigma_max=options.sigma_max,
        final=options.final or "zero",
    )


def _grid_of(options: ShowOptions, checkpoint: Path) -> Grid:
    """The grid on the noise schedule of a checkpoint."""
    from samplers.checkpoint import read_settings

    settings = read_settings(checkpoint)
    settings = replace(settings, final=options.final or settings.final)
    return settings.grid(
        options.steps or _STEPS,
        options.grid,
        sigma_min=options.sigma_min,
        sigma_max=options.sigma_max,
    )
