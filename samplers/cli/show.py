"""``samplers show``: a sampler's equation, reference, options and tableau."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click import Choice

from samplers.choices import DEFAULT_SPACING, ConfigSpacing
from samplers.cli.common.options import GridOptions, SchedulerOptions
from samplers.cli.common.program import argument, changed, command, option
from samplers.cli.common.text import plain
from samplers.cli.common.values import PATH, POSITIVE, SAMPLER

if TYPE_CHECKING:
    from samplers.fitting import FittedGrid
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
        "NAME",
        type=SAMPLER,
        help="Name of a sampler, or an alias; or the file of a tuned one or of a fitted grid.",
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
    from samplers.cli.common.tuned import fitted_of, tuned_of
    from samplers.registry import AdaptiveSampler, get_sampler

    fitted = fitted_of(options.name)
    if fitted is not None:
        _show_fitted(options, fitted)
        return
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
    print(plain(sampler.description), steps, sep="\n\n")


def _show_fitted(options: ShowOptions, fitted: FittedGrid) -> None:
    """Print what a fitted grid is; the tableau is that of a sampler."""
    if options.json or options.checkpoint is not None or options.schedule is not None:
        raise ValueError(
            f"{options.name} is a fitted grid, and a tableau is that of a sampler; name it first, "
            f"as in `samplers show {fitted.about['sampler']} --grid {options.name}`."
        )
    print(f"{fitted.description}\n\nPass it as --grid {options.name}.")


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
    from samplers.checkpoint import Recipe, read_recipe
    from samplers.cli.common.checkpoints import sampler_options, sampling_recipe
    from samplers.fitting import FittedGrid
    from samplers.sampling import grid_for

    own = Recipe() if options.checkpoint is None else read_recipe(options.checkpoint)
    grid = sampling_recipe(options, own).grid
    if isinstance(grid, FittedGrid):
        on = grid_for(sampler.name, _schedule(options), options.steps, grid)
    elif options.checkpoint is None:
        on = _grid(options)
    else:
        on = _grid_of(options, options.checkpoint, grid)
    return sampler.tableau(on, sampler_options(sampler.name, options.options, own))


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


def _grid_of(options: ShowOptions, checkpoint: Path, spacing: ConfigSpacing | None) -> Grid:
    """The grid on the noise schedule of a checkpoint."""
    from samplers.checkpoint import read_settings

    settings = read_settings(checkpoint)
    settings = replace(settings, final=options.final or settings.final)
    return settings.grid(
        options.steps or _STEPS,
        spacing,
        sigma_min=options.sigma_min,
        sigma_max=options.sigma_max,
    )
