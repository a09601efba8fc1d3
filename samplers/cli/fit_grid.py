"""``samplers fit-grid``: noise levels fitted to a checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from click import Choice

from samplers.choices import FIT_BUDGET
from samplers.cli.common.errors import named_failures, printed_warnings, smaller_batches, writing
from samplers.cli.common.options import ConditionOptions, ModelOptions, OverwriteOptions
from samplers.cli.common.output import check_folder, held, refuse_existing
from samplers.cli.common.program import command, option
from samplers.cli.common.text import counted
from samplers.cli.common.values import (
    COUNTS,
    IMAGE_COUNT,
    PATH,
    POSITIVE,
    SAMPLER,
    WHOLE,
    fixed_sampler,
)

if TYPE_CHECKING:
    from samplers.checkpoint import Recipe
    from samplers.fitting import FittedGrid
    from samplers.fitting.fitted import AboutGrid
    from samplers.grid import Grid

_EXAMPLES = """
Example:
  samplers fit-grid assets/digits --steps 5,8 --output fitted/
  samplers sample assets/digits --grid fitted/digits-5.json --output digits.png

A fit takes as long as 20 images with 50 steps, at most, unless --budget is given.
"""


class FitGridOptions(ConditionOptions, ModelOptions, OverwriteOptions, section="Fitting"):
    steps: tuple[int, ...] = option(
        type=COUNTS, help="Numbers of steps, from 2; a grid for each.", required=True
    )
    sampler: str | None = option(
        type=SAMPLER,
        help="Deterministic sampler that the levels are for, see `samplers list`.",
        show_default="that of `samplers sample`",
    )
    criterion: Literal["error", "geometry"] = option(
        type=Choice(("error", "geometry")),
        help="What is minimised: the estimated error of the sampler; or the cost of Euler steps by "
        "dynamic programming, for comparison (GITS).",
        default="error",
    )
    samples: int = option(type=IMAGE_COUNT, help="Samples to fit to, 12 at most.", default=12)
    seed: int = option(type=WHOLE, help="Seed of the first sample.", default=0)
    budget: int = option(
        type=POSITIVE,
        help="Network evaluations of one sample that a fit may take; a guided one counts once.",
        default=FIT_BUDGET,
    )
    batch_size: int = option(type=IMAGE_COUNT, help="Batch size.", default=16)
    licence: str = option(help="Licence of the files.", metavar="NAME", default="CC0-1.0")
    output: Path = option(type=PATH, help="Folder for the grids.", metavar="FOLDER", required=True)

    def path(self, steps: int) -> Path:
        return self.output / f"{self.checkpoint.resolve().name}-{steps}.json"

    def check(self) -> None:
        """Raise what can be seen to be wrong without loading anything."""
        check_folder(self.output)
        if not self.overwrite:
            refuse_existing(map(self.path, self.steps))
        self.check_checkpoint()


@command(_EXAMPLES, single_process=True)
def run(options: FitGridOptions) -> None:
    """Fit the noise levels of a sampler to a checkpoint."""
    options.check()
    from dataclasses import replace

    from samplers.checkpoint import read_recipe
    from samplers.cli.common.checkpoints import (
        in_python,
        labels_in_turn,
        open_network,
        purpose_of,
        recipe_from,
    )
    from samplers.fitting import fit_grid

    name = options.sampler or read_recipe(options.checkpoint).sampler
    if not isinstance(name, str):
        raise ValueError(
            f"The scheduler of {options.checkpoint} has a tuned sampler, with its own noise "
            "levels; name another as --sampler."
        )
    sampler = fixed_sampler(name)
    checkpoint = open_network(options, instead=in_python("fit_grid"))
    recipe = checkpoint.settle(replace(recipe_from(options), sampler=sampler, final="zero"))
    turn = labels_in_turn(options, checkpoint, options.samples)
    labels = None if turn is None else [turn[i % len(turn)] for i in range(options.samples)]
    seeds = range(options.seed, options.seed + options.samples)

    def fitted(steps: int) -> FittedGrid:
        base = checkpoint.grid(replace(recipe, steps=steps))
        with named_failures(smaller_batches(options.batch_size)), printed_warnings():
            found = fit_grid(
                checkpoint.guided(recipe),
                checkpoint.start(checkpoint.settings.schedule.noisiest, seeds),
                steps,
                sampler=sampler,
                grid=base,
                conditions=checkpoint.conditions(labels),
                criterion=options.criterion,
                budget=options.budget,
                batch_size=options.batch_size,
                purpose=purpose_of(checkpoint, recipe, turn, options.licence),
                progress=sys.stderr.isatty(),
            )
        about: AboutGrid = {**found.about, "base": _words(recipe, base)}
        return replace(found, about=about)

    with held(options.output):
        for steps in options.steps:
            found, path = fitted(steps), options.path(steps)
            with writing(path):
                found.save(path)
            print(_report(found, path))


def _words(recipe: Recipe, base: Grid) -> str:
    """The grid to start from, which is the default of the checkpoint."""
    last = float(base[base.steps - 1].rho)
    return f"default grid {recipe.grid}, last noise level {last:.4g}"


def _report(fitted: FittedGrid, path: Path) -> str:
    about = fitted.about
    before, after = about["before"], about["after"]
    return (
        f"{counted(fitted.steps, 'step')} of {about['sampler']}: relative error "
        f"{after['geometric_mean']:.3g} (root mean square {after['rms']:.3g}) on "
        f"{counted(about['pilots'], 'sample')}; {about['base']}: {before['geometric_mean']:.3g} "
        f"({before['rms']:.3g}); {about['evaluations']:,} network evaluations -> {path}"
    )
