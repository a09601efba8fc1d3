"""What a sampler is tuned on: a model, initial noise, conditions and converged samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from samplers.denoiser import Denoiser, select_rows
from samplers.prediction import to_data
from samplers.solve import working_dtype
from samplers.tuning.processes import gathered, own_rows
from samplers.tuning.table import Table


@dataclass(frozen=True, eq=False)
class Problem:
    """A model, initial noise [N, ...] with its conditions, and the converged samples from it."""

    model: Denoiser
    noise: Tensor
    conditions: Mapping[str, Any]
    targets: Tensor

    def __len__(self) -> int:
        return len(self.noise)

    def rows(self, indices: Tensor) -> Problem:
        """The problem of these samples."""
        indices = indices.to(self.noise.device)
        return Problem(
            self.model,
            self.noise[indices],
            select_rows(self.conditions, indices),
            self.targets[indices],
        )

    def batches(self, size: int) -> Iterator[Problem]:
        for first in range(0, len(self), size):
            yield self.rows(torch.arange(first, min(first + size, len(self))))

    def solved(self, table: Table, x_T: Tensor | None = None) -> Tensor:
        """The samples of a table, with gradients to its numbers and to ``x_T``, if it is given.

        The same as those of :class:`samplers.solve.Solver` up to rounding, without building and
        checking a tableau in each iteration. A network evaluation is recomputed in the backward
        pass, so that the memory is that of one.
        """
        model, x = self.model, self.noise if x_T is None else x_T
        x = x.to(working_dtype(x.dtype))
        points, at = table.points(model.schedule)
        of_x, of_output = to_data(model.prediction, at)
        ratio, gains = table.coefficients(points)
        of_x, of_output, ratio, times, gains = (
            numbers.to(x) for numbers in (of_x, of_output, ratio, at.t, gains)
        )
        made: list[Tensor] = []
        for k in range(table.nfe):
            output = self._evaluated(x, times[k].expand(len(x))).to(x.dtype)
            data = of_x[k] * x + of_output[k] * output
            made.insert(0, data if model.correction is None else model.correction(data))
            made = made[: gains.shape[1]]
            x = sum((gains[k, j] * data for j, data in enumerate(made)), ratio[k] * x)
        return x

    def _evaluated(self, x: Tensor, t: Tensor) -> Tensor:
        def call(x: Tensor, t: Tensor) -> Tensor:
            return self.model(x, t, **self.conditions)

        if not torch.is_grad_enabled():
            return call(x, t)
        output: Tensor = checkpoint(call, x, t, use_reentrant=False, preserve_rng_state=False)
        return output

    @torch.no_grad()
    def samples(self, table: Table, batch_size: int) -> Tensor:
        """The samples of a table without gradients, in batches, shared among processes."""
        own = self.rows(own_rows(len(self)))
        parts = [part.solved(table) for part in own.batches(batch_size)]
        return gathered(torch.cat([own.targets[:0], *parts]), len(self))

    def mean_loss(self, table: Table, batch_size: int, loss: Callable[..., Tensor]) -> float:
        """The mean loss of all samples; infinite if it is not finite."""
        value = float(loss(self.samples(table, batch_size), self.targets).mean())
        return value if math.isfinite(value) else math.inf
