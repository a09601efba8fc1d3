"""The work of ``samplers compare``: one picture of samplers by number of network calls."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from samplers.checkpoint import Checkpoint, Recipe
from samplers.cli.choices import check_count, chosen_labels, chosen_seeds
from samplers.cli.failure import named_failures
from samplers.cli.opening import open_checkpoint, recipe_from
from samplers.cli.output import common_parameters, is_picture, prepare_folder, write
from samplers.cli.processes import join
from samplers.cli.text import aligned, counted
from samplers.images.pixels import Cell, table, to_images
from samplers.registry import get_sampler

_PLENTY = 10
"""Steps enough for every sampler."""


@dataclass(frozen=True)
class Trial:
    """One run to make: its recipe, and the network calls that it takes."""

    recipe: Recipe
    calls: int


@dataclass(frozen=True)
class Result:
    """A run that was made; the error is None if the sampler draws noise of its own."""

    trial: Trial
    images: Tensor
    error: float | None


Rows = dict[str, list[Trial | None]]
ResultRows = dict[str, list[Result | None]]


@dataclass(frozen=True)
class Comparison:
    """Everything that a run of ``compare`` does, settled before the first network call."""

    arguments: argparse.Namespace
    checkpoint: Checkpoint
    seeds: tuple[int, ...]
    labels: tuple[int, ...] | None
    reference: Trial
    rows: Rows

    def run(self) -> ResultRows:
        """Make every run; samplers that draw noise of their own get no error."""
        trials = [trial for row in self.rows.values() for trial in row if trial is not None]
        total = self.reference.calls + sum(trial.calls for trial in trials)
        with tqdm(total=total, unit="call", disable=None) as bar:
            exact = self._draw(self.reference, bar.update)
            return {
                name: [self._result(trial, exact, bar.update) for trial in row]
                for name, row in self.rows.items()
            }

    def _result(
        self, trial: Trial | None, exact: Tensor, tick: Callable[[], object]
    ) -> Result | None:
        if trial is None:
            return None
        images = self._draw(trial, tick)
        if get_sampler(trial.recipe.sampler).stochastic:
            return Result(trial, images, None)
        return Result(trial, images, float(torch.sqrt(torch.mean((images - exact) ** 2))))

    def _draw(self, trial: Trial, tick: Callable[[], object]) -> Tensor:
        return self.checkpoint.draw(trial.recipe, self.seeds, self.labels, tick)


def run(arguments: argparse.Namespace) -> int:
    """Draw the comparison that the arguments ask for; returns the exit code."""
    if not is_picture(arguments.output):
        raise ValueError(f"The output is {arguments.output}; a comparison is one file, NAME.png.")
    if get_sampler(arguments.reference).stochastic:
        raise ValueError(
            f"The reference {arguments.reference!r} draws noise of its own, so there is no error "
            "to it; take one that draws none."
        )
    for name in ("samplers", "nfe"):
        if len(set(getattr(arguments, name))) < len(getattr(arguments, name)):
            raise ValueError(f"--{name} lists one twice; name each once.")
    processes = join(arguments.device)
    if not processes.main:
        return 0  # a comparison is small: the main process makes it alone
    comparison = _plan(arguments, open_checkpoint(arguments, processes.device))
    prepare_folder(arguments.output.parent)
    started = time.perf_counter()
    with named_failures("compare fewer images"):
        results = comparison.run()
    title = _title(comparison.reference)
    headings = [f"up to {counted(budget, 'call')}" for budget in arguments.nfe]
    cells = [(name, [_cell(result) for result in row]) for name, row in results.items()]
    write(table(title, headings, cells), arguments.output, _parameters(comparison, results))
    print(f"{title}\n\n{_text(headings, results)}\n")
    print(f"{time.perf_counter() - started:.1f} s -> {arguments.output}")
    return 0


def _plan(arguments: argparse.Namespace, checkpoint: Checkpoint) -> Comparison:
    seeds = chosen_seeds(arguments, 1)
    turn = chosen_labels(arguments.label, checkpoint.classes, checkpoint.null_label)
    check_count(arguments.label, len(seeds))
    labels = tuple(turn[i % len(turn)] for i in range(len(seeds))) if turn else None
    reference = _trial(arguments, checkpoint, arguments.reference, arguments.reference_steps)
    rows = {
        name: [_within(arguments, checkpoint, name, budget) for budget in arguments.nfe]
        for name in arguments.samplers
    }
    return Comparison(arguments, checkpoint, seeds, labels, reference, rows)


def _trial(
    arguments: argparse.Namespace, checkpoint: Checkpoint, sampler: str, steps: int
) -> Trial:
    recipe = checkpoint.settle(replace(recipe_from(arguments), sampler=sampler, steps=steps))
    return Trial(recipe, checkpoint.tableau(recipe).calls)


def _within(
    arguments: argparse.Namespace, checkpoint: Checkpoint, sampler: str, budget: int
) -> Trial | None:
    """The run with the most steps whose network calls stay within the budget, if there is one."""
    _trial(arguments, checkpoint, sampler, _PLENTY)  # what is wrong but for a lack of steps
    most = min(budget, budget // get_sampler(sampler).calls + 1)
    for steps in range(most, 0, -1):
        with contextlib.suppress(ValueError):
            trial = _trial(arguments, checkpoint, sampler, steps)
            if trial.calls <= budget:
                return trial
    return None


# ------------------------------------------------------------------------------- how it is told


def _title(reference: Trial) -> str:
    name, calls = reference.recipe.sampler, reference.calls
    return f"RMS error to {name} with {calls} network calls, from the same noise"


def _cell(result: Result | None) -> Cell:
    if result is None:
        return Cell((), ("needs more calls",))
    return Cell(tuple(to_images(result.images)), (_error(result), _cost(result)))


def _error(result: Result) -> str:
    return "draws its own noise" if result.error is None else f"error {result.error:.3g}"


def _cost(result: Result) -> str:
    steps, calls = result.trial.recipe.steps, result.trial.calls
    return f"{counted(calls, 'call')}, {counted(steps, 'step')}"


def _text(headings: Sequence[str], results: ResultRows) -> str:
    rows = [("sampler", *headings)]
    for name, row in results.items():
        rows.append((name, *(_line(result) for result in row)))
    return aligned(rows)


def _line(result: Result | None) -> str:
    if result is None:
        return "needs more"
    error = "own noise" if result.error is None else f"{result.error:.3g}"
    return f"{error} ({counted(result.trial.calls, 'call')})"


def _parameters(comparison: Comparison, results: ResultRows) -> dict[str, Any]:
    recipe = comparison.reference.recipe
    common = common_parameters(
        comparison.arguments, comparison.checkpoint, recipe, comparison.seeds, comparison.labels
    )
    return common | {
        "grid": recipe.grid,
        "reference": {"sampler": recipe.sampler, "steps": recipe.steps},
        "results": [
            {
                "sampler": name,
                "steps": result.trial.recipe.steps,
                "network_calls": result.trial.calls,
                "error": result.error,
            }
            for name, row in results.items()
            for result in row
            if result is not None
        ],
    }
