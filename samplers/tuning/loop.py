"""``tune``: learn a sampler for a network, by gradients through the whole sampler."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samplers.checks import check_numbers, check_whole
from samplers.denoiser import Denoiser, check_conditions, check_denoiser
from samplers.tuning.config import TuningConfig
from samplers.tuning.learner import TableLearner
from samplers.tuning.objective import DISTANCES, Loss, Score, name_of
from samplers.tuning.problem import Problem
from samplers.tuning.processes import rank_and_count
from samplers.tuning.purpose import Purpose, facts_of, scores
from samplers.tuning.sampler import About, TunedSampler
from samplers.tuning.starts import Start, best_starts, starts
from samplers.tuning.table import Table, resampled
from samplers.tuning.teacher import Taught, teach

_LEAST_NFE = 2
_ABOVE_TEACHER = 5.0
"""The error of the start must be larger than that of the teacher by this factor."""


def tune(
    model: Denoiser,
    x_T: Tensor,
    nfe: int,
    *,
    conditions: Mapping[str, Any] | None = None,
    config: TuningConfig | None = None,
    loss: Loss | None = None,
    start: Start | None = None,
    purpose: Purpose | None = None,
    folder: Path | None = None,
    progress: bool = False,
) -> TunedSampler:
    r"""Learn a sampler of ``nfe`` network evaluations for a model.

    Noise levels, weights and the times that the network is given are moved by Adam so that the
    sampler's x_0 from each initial noise is the converged one of a teacher with many steps. With
    ``distance="log"`` that is

    .. math:: \min \; \mathrm{mean}_i \, \log
        \frac{\lVert x_i - x_i^* \rVert}{\lVert x_i^* \rVert}

    and by default the mean of this and of the logarithm of the root mean square of the errors
    (Bespoke Non-Stationary solvers, https://arxiv.org/abs/2403.01329; S4S,
    https://arxiv.org/abs/2502.17423; LD3, https://arxiv.org/abs/2405.15506). What is learned, some
    ``nfe (nfe + 5) / 2`` numbers, has a form in which every sampler is exact on data concentrated
    at one point, see :class:`TunedSampler`. Gradients are exact, with the memory of one evaluation.
    The processes of ``accelerate launch``, if its state is there, share the samples; each returns
    the same sampler, which is that of one process up to rounding.

    Args:
        model: the network, which must be differentiable in x; its weights are not changed.
        x_T: initial noise [N, ...] at the noisiest level, such as that of
            :meth:`Denoiser.initial`. The last ``config.held_out`` of it are not trained on: they
            choose the iterate, and the scores are theirs.
        nfe: the number of network evaluations, from 2.
        conditions: given to the network by name, with a row for each of the N samples, or shared.
        config: the settings.
        loss: instead of the distance of the config: ``loss(x, target) -> [B]``, such as a distance
            of features or minus a reward. A run that resumes knows it by its name.
        start: the untuned sampler to start from and to compare with; the best of some eighty on
            the training noise if None.
        purpose: what it is tuned for, in words.
        folder: receives the teacher's samples and the state of the run; a run that was killed
            resumes there with the same result, bit for bit.
        progress: show progress bars.

    Raises:
        ValueError: for impossible settings, a teacher that has not converged, a model without
            gradients, or if no iterate was better than the start on the held-out samples in
            geometric mean, and no worse in root mean square.
        NotFiniteError: if the network returns NaN or infinity.
    """
    check_nfe([nfe])
    run = Tuning.begin(model, x_T, conditions, config, loss, purpose, folder, progress)
    return run.tuned(nfe, start)


def tune_family(
    model: Denoiser,
    x_T: Tensor,
    nfes: Sequence[int],
    *,
    conditions: Mapping[str, Any] | None = None,
    config: TuningConfig | None = None,
    loss: Loss | None = None,
    start: Start | None = None,
    purpose: Purpose | None = None,
    folder: Path | None = None,
    progress: bool = False,
) -> dict[int, TunedSampler]:
    """Learn a sampler for each number of network evaluations, from fewest to most.

    They share the teacher's samples, and each may start from its neighbour, interpolated at equal
    fractions of the run. The arguments and errors are those of :func:`tune`; but a number of
    evaluations at which tuning gains nothing is left out, with a warning.
    """
    check_nfe(nfes)
    run = Tuning.begin(model, x_T, conditions, config, loss, purpose, folder, progress)
    found: dict[int, TunedSampler] = {}
    for nfe in sorted(set(nfes)):
        warm = [resampled(tuned.table, nfe) for tuned in list(found.values())[-1:]]
        try:
            found[nfe] = run.tuned(nfe, start, warm)
        except NothingGained as error:
            warnings.warn(str(error), stacklevel=2)
    return found


class NothingGained(ValueError):
    """No iterate was better than the start on the held-out samples, or the start is as good as the
    teacher."""


@dataclass(frozen=True, eq=False)
class Tuning:
    """What the samplers of one run share: the samples to train on and to hold out, and settings."""

    training: Problem
    held_out: Problem
    taught: Taught
    config: TuningConfig
    loss: Loss | None
    purpose: Purpose
    folder: Path | None
    progress: bool

    @classmethod
    def begin(
        cls,
        model: Denoiser,
        x_T: Tensor,
        conditions: Mapping[str, Any] | None = None,
        config: TuningConfig | None = None,
        loss: Loss | None = None,
        purpose: Purpose | None = None,
        folder: Path | None = None,
        progress: bool = False,
    ) -> Tuning:
        """Check everything, and compute the teacher's samples."""
        config, given = config or TuningConfig(), conditions or {}
        check_denoiser(model)
        check_numbers("x_T", x_T)
        check_conditions(given, len(x_T))
        count = len(x_T) - config.held_out
        if count < 1:
            raise ValueError(
                f"{len(x_T)} samples came, of which {config.held_out} are held out; give more, or "
                "hold out fewer."
            )
        _check_shares(min(config.batch_size, count))
        _check_gradient(Problem(model, x_T, given, x_T).rows(torch.arange(1)))
        taught = teach(model, x_T, given, config, folder, progress)
        problem = Problem(model, x_T, given, taught.targets)
        training, held_out = torch.arange(len(x_T)).split([count, config.held_out])
        return cls(
            problem.rows(training),
            problem.rows(held_out),
            taught,
            config,
            loss,
            purpose or Purpose(),
            folder,
            progress,
        )

    @property
    def distance(self) -> Loss:
        return self.loss or DISTANCES[self.config.distance]

    def tuned(self, nfe: int, start: Start | None, warm: Sequence[Table] = ()) -> TunedSampler:
        """The sampler of a number of evaluations, from the best of the starts.

        Gradients are computed under ``torch.no_grad``, too.
        """
        with torch.enable_grad():
            return self._tuned(nfe, start, warm)

    def _tuned(self, nfe: int, start: Start | None, warm: Sequence[Table]) -> TunedSampler:
        size = self.config.batch_size
        candidates = [start] if start else starts(self.training)
        found = best_starts(self.training, nfe, candidates, self.distance, size)
        base, table = found[0]
        before = self._score(table)
        self._check_teacher(before)
        learner = TableLearner(
            self.training,
            self.held_out,
            *self._first(found, warm),
            self.distance,
            self.config,
            before if self.loss is None else None,  # a custom loss may trade them
        )
        path = None if self.folder is None else self.folder / f"state-{nfe}.pt"
        best = learner.learn(path, self.taught.key, self.progress)
        if best is None or not best.value < self.held_out.mean_loss(table, size, self.distance):
            raise NothingGained(
                f"Tuning at {nfe} evaluations found nothing better than {base} on the "
                f"{self.config.held_out} held-out samples; take more samples or iterations, or a "
                "lower learning rate."
            )
        return TunedSampler(best.table.trimmed, self._about(base, before, best.table))

    def _score(self, table: Table) -> Score:
        samples = self.held_out.samples(table, self.config.batch_size)
        return Score.of(samples, self.held_out.targets)

    def _first(
        self, found: Sequence[tuple[Start, Table]], warm: Sequence[Table]
    ) -> tuple[Table, Callable[[Tensor], Tensor] | None]:
        """The table to begin with, and the weights of its sampler on other levels."""
        if "weights" not in self.config.learn:
            start, table = found[0]
            return table, partial(start.weights, self.training.model.schedule)
        tables = [*(table for _, table in found), *warm]
        tables = [table.remembering(self.config.memory) for table in tables]
        size = self.config.batch_size
        return min(tables, key=lambda t: self.training.mean_loss(t, size, self.distance)), None

    def _check_teacher(self, before: Score) -> None:
        if before.geometric_mean < _ABOVE_TEACHER * self.taught.error:
            raise NothingGained(
                f"The untuned sampler's error {before.geometric_mean:.2g} is near that of the "
                f"teacher, {self.taught.error:.2g}; take more teacher steps, or fewer evaluations."
            )

    def _about(self, base: Start, before: Score, table: Table) -> About:
        config = self.config
        return About(
            **facts_of(self.training.model, self.purpose),  # type: ignore[typeddict-item]
            base=str(base),
            learned=sorted(config.learn),
            memory=config.memory,
            objective=config.distance if self.loss is None else name_of(self.loss),
            held_out=config.held_out,
            teacher=f"{config.teacher}, {config.teacher_steps} steps",
            teacher_error=self.taught.error,
            before=scores(before),
            after=scores(self._score(table)),
        )


def check_nfe(nfes: Sequence[int]) -> None:
    """Raise ValueError unless a sampler can be tuned at each number of network evaluations."""
    for nfe in nfes:
        check_whole("The number of network evaluations", nfe)
        if nfe < _LEAST_NFE:
            raise ValueError(
                f"The number of network evaluations is {nfe}; a sampler can be tuned from "
                f"{_LEAST_NFE} on."
            )


def _check_shares(batch: int) -> None:
    """Raise ValueError unless every process has a sample of each batch."""
    _, processes = rank_and_count()
    if batch < processes:
        raise ValueError(
            f"A batch has {batch} samples for {processes} processes; take one for each at least."
        )


def _check_gradient(one: Problem) -> None:
    """Raise ValueError unless the network's output depends on x in the graph of autograd."""
    model, x = one.model, one.noise.detach().requires_grad_()
    with torch.enable_grad():
        t = model.schedule.noisiest.t.to(x).expand(len(x))
        total = model(x, t, **one.conditions).sum()
    if not total.requires_grad or torch.autograd.grad(total, x, allow_unused=True)[0] is None:
        raise ValueError(
            "The network's output has no gradient in x, and tuning needs it; give a network that "
            "autograd can differentiate (no torch.no_grad or detach inside)."
        )
