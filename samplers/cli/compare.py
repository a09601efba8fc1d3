"""``samplers compare``: samplers side by side, by number of network evaluations."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samplers.choices import DEFAULT_SAMPLER
from samplers.cli.common.errors import evaluating, printed_warnings
from samplers.cli.common.options import (
    ConditionOptions,
    GridOptions,
    ImageOptions,
    ModelOptions,
    OverwriteOptions,
    PromptOptions,
)
from samplers.cli.common.output import check_png, prepare_folder, write
from samplers.cli.common.program import changed, command, option
from samplers.cli.common.text import aligned, counted
from samplers.cli.common.values import (
    COUNTS,
    OUTPUT,
    POSITIVE,
    SAMPLER,
    SAMPLERS,
    fixed_sampler,
    seeds_text,
)

if TYPE_CHECKING:
    from torch import Tensor

    from samplers.checkpoint import Checkpoint, Recipe
    from samplers.cli.common.tuned import Kept
    from samplers.images.figures import Cell
    from samplers.tuning import TunedSampler

_SAMPLERS = ("ddim", "heun", "dpmpp-2m", "unipc-2", DEFAULT_SAMPLER)
_REFERENCE = "dpmpp-3m-corrected"
_ENOUGH = 10
"""Steps enough for every sampler."""

_EXAMPLES = """
Example:
  samplers compare assets/digits --samplers ddim,heun,dpmpp-2m,unipc --nfe 5,10,20 --label 3 \\
      --output compare.png

All start from the same initial noise. Each sampler takes the most steps whose network evaluations
(NFE; a guided step makes two) stay within the column's budget. The error is the root mean square
difference to the reference, over the pixels of all images, from -1 to 1: take several images, by
--num-images, to tell close samplers apart. The noise of a stochastic sampler is a Brownian path,
the same for any number of steps, and its reference is its own run of --reference-steps along this
path; one whose noise is no such path (EDM's churn, a Langevin corrector) has no error.
"""


class CompareOptions(
    ConditionOptions,
    PromptOptions,
    ImageOptions,
    GridOptions,
    ModelOptions,
    OverwriteOptions,
    section="Samplers",
):
    samplers: tuple[str, ...] | None = option(
        type=SAMPLERS,
        help="Samplers, one per row, see `samplers list`; files of tuned ones, or of fitted grids, "
        "each with its sampler; or a folder of them for one row.",
        show_default=f"{','.join(_SAMPLERS)}; of a distilled network its own",
    )
    nfe: tuple[int, ...] = option(
        type=COUNTS, help="Budgets of network evaluations, one per column.", default=(5, 10, 20)
    )
    reference: str | None = option(
        type=SAMPLER,
        help="Sampler of the reference, to which errors of deterministic samplers are measured.",
        show_default=_REFERENCE,
    )
    reference_steps: int = option(type=POSITIVE, help="Steps of the reference.", default=200)
    num_images: int | None = changed(ImageOptions, "num_images", show_default="1, or as --seeds")
    output: Path = option(
        type=OUTPUT, help="Figure to write.", metavar="NAME.png", required=True, section="Output"
    )


@command(_EXAMPLES, single_process=True)
def run(options: CompareOptions) -> None:
    """Compare samplers side by side, by number of network evaluations."""
    check_png(options.output, "a comparison")
    options.check_checkpoint()
    for name, values in (("samplers", options.samplers), ("nfe", options.nfe)):
        if values is not None and len(set(values)) < len(values):
            raise ValueError(f"--{name} lists one twice; name each once.")
    started = time.perf_counter()
    with printed_warnings():
        comparison = _plan(options)
        prepare_folder(options.output.parent)
        with evaluating("compare fewer images"):
            results = comparison.run()
        _write(comparison, results)
    print(f"{_title(comparison)}\n\n{_text(options.nfe, results)}\n")
    print(f"{time.perf_counter() - started:.1f} s -> {options.output}")


@dataclass(frozen=True)
class Trial:
    """One run to make: its recipe, how often it ticks, and its network evaluations of an image."""

    recipe: Recipe
    ticks: int
    nfe: int


@dataclass(frozen=True)
class Result:
    """A run that was made; the error is None if its sampler has no reference."""

    trial: Trial
    images: Tensor
    error: float | None


Chosen = str | tuple["Kept", ...]
"""A sampler by name, or tuned samplers and fitted grids, of which a column takes the one with the
most evaluations."""

Rows = dict[str, list[Trial | None]]
ResultRows = dict[str, list[Result | None]]


@dataclass(frozen=True)
class Comparison:
    """Everything that a run of ``compare`` does, settled before the first network evaluation.

    Attributes:
        reference: of the deterministic samplers; None if there are none.
        references: of each sampler, by name; None for noise that is no Brownian path.
    """

    options: CompareOptions
    checkpoint: Checkpoint
    seeds: tuple[int, ...]
    labels: tuple[int, ...] | None
    reference: Trial | None
    references: dict[str, Trial | None]
    rows: Rows

    def run(self) -> ResultRows:
        """Make every run."""
        from tqdm.auto import tqdm

        trials = [trial for row in self.rows.values() for trial in row if trial is not None]
        fine = {t.recipe.name: t for t in self.references.values() if t is not None}
        total = sum(trial.ticks for trial in [*fine.values(), *trials])
        with tqdm(total=total, unit="evaluation", disable=None) as bar:
            exact = {name: self._sample(trial, bar.update) for name, trial in fine.items()}
            return {
                name: [self._result(trial, self._exact(name, exact), bar.update) for trial in row]
                for name, row in self.rows.items()
            }

    def _exact(self, name: str, exact: dict[str, Tensor]) -> Tensor | None:
        reference = self.references[name]
        return None if reference is None else exact[reference.recipe.name]

    def _result(
        self, trial: Trial | None, exact: Tensor | None, tick: Callable[[], object]
    ) -> Result | None:
        if trial is None:
            return None
        images = self._sample(trial, tick)
        error = None if exact is None else float(((images - exact) ** 2).mean().sqrt())
        return Result(trial, images, error)

    def _sample(self, trial: Trial, tick: Callable[[], object]) -> Tensor:
        return self.checkpoint.draw(trial.recipe, self.seeds, self.labels, tick)


def _plan(options: CompareOptions) -> Comparison:
    from samplers.cli.common.checkpoints import labels_of, open_checkpoint
    from samplers.cli.common.processes import find_device
    from samplers.registry import get_sampler

    checkpoint = open_checkpoint(options, find_device(options.device))
    distilled = checkpoint.settings.distilled_for
    default = _SAMPLERS if distilled is None else (distilled,)
    samplers = dict(map(_chosen, options.samplers or default))
    seeds = options.chosen_seeds(1)
    labels = labels_of(options, checkpoint, len(seeds))
    with printed_warnings():
        rows = {
            name: [_within(options, checkpoint, own, budget) for budget in options.nfe]
            for name, own in samplers.items()
        }
    stochastic = {
        name: isinstance(own, str) and get_sampler(own).stochastic for name, own in samplers.items()
    }
    needed = options.reference is not None or not all(stochastic.values())
    reference = _reference(options, checkpoint) if needed else None
    references = {
        name: _own_reference(options, checkpoint, name) if stochastic[name] else reference
        for name in samplers
    }
    return Comparison(options, checkpoint, seeds, labels, reference, references, rows)


def _chosen(name: str) -> tuple[str, Chosen]:
    """A row: its name, and the sampler, or the tuned samplers and fitted grids that it has."""
    from samplers.cli.common.tuned import chosen_sampler, fitted_of, is_folder, kept_in

    if is_folder(name):
        found = tuple(own for path, own in kept_in(Path(name)).items() if path.parent == Path(name))
        if not found:
            raise ValueError(f"There is no tuned sampler and no fitted grid in {name}.")
        return name, found
    own = fitted_of(name) or chosen_sampler(name)
    return (own, own) if isinstance(own, str) else (name, (own,))


def _reference(options: CompareOptions, checkpoint: Checkpoint) -> Trial:
    """The fine run of the deterministic samplers; ValueError if it is a stochastic one."""
    from samplers.registry import get_sampler

    name = fixed_sampler(options.reference or _REFERENCE)
    if get_sampler(name).stochastic:
        raise ValueError(
            f"The reference {name!r} is stochastic, so there is no error to it; pass a "
            "deterministic sampler as --reference."
        )
    return _trial(options, checkpoint, name, options.reference_steps)


def _own_reference(options: CompareOptions, checkpoint: Checkpoint, sampler: str) -> Trial | None:
    """The fine run of a stochastic sampler; None if its noise is no Brownian path."""
    if _trial(options, checkpoint, sampler, _ENOUGH).recipe.noise != "brownian":
        return None
    return _trial(options, checkpoint, sampler, options.reference_steps)


def _own_trial(options: CompareOptions, checkpoint: Checkpoint, own: Kept) -> Trial:
    """The run of a tuned sampler, or of a fitted grid with the sampler that it was fitted for."""
    from samplers.cli.common.checkpoints import recipe_from
    from samplers.fitting import FittedGrid

    said = recipe_from(options)
    if isinstance(own, FittedGrid):
        asked = replace(said, sampler=own.about["sampler"], steps=own.steps, grid=own)
        return _settled(checkpoint, asked)
    return _trial(options, checkpoint, own, own.nfe)


def _trial(
    options: CompareOptions, checkpoint: Checkpoint, sampler: str | TunedSampler, steps: int
) -> Trial:
    """A run with a number of steps.

    A fitted grid is for its own number of steps only; any other has the default one.
    """
    from samplers.cli.common.checkpoints import recipe_from

    said = recipe_from(options)
    grid = said.grid if _fitted_steps(options) in (None, steps) else None
    return _settled(checkpoint, replace(said, sampler=sampler, steps=steps, grid=grid))


def _settled(checkpoint: Checkpoint, asked: Recipe) -> Trial:
    """The run of a recipe, whose noise, if any, is along a Brownian path where that is allowed."""
    try:
        recipe = checkpoint.settle(replace(asked, noise="brownian"))
        tableau = checkpoint.tableau(recipe)
    except ValueError:
        recipe = checkpoint.settle(replace(asked, noise="independent"))
        tableau = checkpoint.tableau(recipe)
    return Trial(recipe, tableau.calls, checkpoint.nfe(recipe))


def _within(
    options: CompareOptions, checkpoint: Checkpoint, sampler: Chosen, budget: int
) -> Trial | None:
    """The run with the most steps whose evaluations stay within the budget, if there is one."""
    from samplers.registry import get_sampler

    if not isinstance(sampler, str):
        trials = [_own_trial(options, checkpoint, own) for own in sampler]
        within = [trial for trial in trials if trial.nfe <= budget]
        return max(within, key=lambda trial: trial.nfe, default=None)
    _trial(options, checkpoint, sampler, _ENOUGH)  # what is wrong but for a lack of steps
    most = min(budget, budget // get_sampler(sampler).calls + 1)
    own = _fitted_steps(options)
    for steps in range(most, 0, -1) if own is None else [own]:
        with contextlib.suppress(ValueError):
            trial = _trial(options, checkpoint, sampler, steps)
            if trial.nfe <= budget:
                return trial
    return None


def _fitted_steps(options: CompareOptions) -> int | None:
    """The steps of a fitted grid; None if there is none."""
    from samplers.cli.common.checkpoints import fitted_grid

    grid = fitted_grid(options)
    return None if grid is None else grid.steps


# ----------------------------------------------------------------------------- what is written


def _title(comparison: Comparison) -> str:
    seeds = comparison.seeds
    count, plural = counted(len(seeds), "image"), "s" if len(seeds) > 1 else ""
    start = f"over {count} (seed{plural} {seeds_text(seeds)}), from the same initial noise"
    if comparison.reference is None:
        return f"RMS error of each sampler to its own fine run, {start}"
    name, steps = comparison.reference.recipe.name, comparison.options.reference_steps
    return f"RMS error to {name} with {counted(steps, 'step')}, {start}"


def _write(comparison: Comparison, results: ResultRows) -> None:
    from samplers.cli.common.checkpoints import grid_settings, parameters, recipe_from
    from samplers.images.figures import table

    options, reference = comparison.options, comparison.reference
    one = replace(recipe_from(options), sampler=comparison.checkpoint.settings.default_sampler)
    recipe = comparison.checkpoint.settle(one)
    headings = [f"NFE up to {budget}" for budget in options.nfe]
    cells = [(name, [_cell(result) for result in row]) for name, row in results.items()]
    about = parameters(
        options, comparison.checkpoint, recipe, comparison.seeds, comparison.labels
    ) | {
        **grid_settings(options, recipe),
        "reference": reference
        and {"sampler": reference.recipe.name, "steps": reference.recipe.steps},
        "references": {name: _own(trial) for name, trial in comparison.references.items()},
        "results": [
            _numbers(name, result)
            for name, row in results.items()
            for result in row
            if result is not None
        ],
    }
    write(table(_title(comparison), headings, cells), options.output, about)


def _own(reference: Trial | None) -> str | None:
    return None if reference is None else reference.recipe.name


def _numbers(name: str, result: Result) -> dict[str, Any]:
    trial = result.trial
    return {
        "sampler": name,
        "steps": trial.recipe.steps,
        "network_calls": trial.nfe,
        "error": result.error,
    }


def _cell(result: Result | None) -> Cell:
    from samplers.images.figures import Cell
    from samplers.images.pixels import to_images
    from samplers.images.sheets import sheet

    if result is None:
        return Cell(caption="needs more")
    trial, images = result.trial, to_images(result.images)
    error = "no reference" if result.error is None else f"error {result.error:.3g}"
    cost = f"NFE {trial.nfe}, {counted(trial.recipe.steps, 'step')}"
    return Cell(sheet(images, len(images)), f"{error}\n{cost}")


def _text(budgets: Sequence[int], results: ResultRows) -> str:
    rows = [("sampler", *(f"NFE up to {budget}" for budget in budgets))]
    for name, row in results.items():
        rows.append((name, *(_line(result) for result in row)))
    return aligned(rows)


def _line(result: Result | None) -> str:
    if result is None:
        return "needs more"
    error = "no reference" if result.error is None else f"{result.error:.3g}"
    return f"{error} (NFE {result.trial.nfe})"
