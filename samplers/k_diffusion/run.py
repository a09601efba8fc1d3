"""One run: a model of k-diffusion evaluated by a tableau, or with adaptive step size."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from samplers.denoiser import Denoiser
from samplers.grid import Grid
from samplers.noise import Noise
from samplers.probability_flow import Adaptive, sample_adaptive
from samplers.sampling import checked
from samplers.schedule import EDM, FlowMatching, Schedule
from samplers.solve import Solver, State
from samplers.tableau import Tableau

Callback = Callable[[dict[str, Any]], object]
"""Called with a dictionary of ``x``, ``i``, ``sigma``, ``sigma_hat`` and ``denoised``."""


@dataclass(frozen=True, eq=False)
class Call:
    """What the caller of a sampling function passes, with all defaults in place."""

    model: Callable[..., Tensor]
    x: Tensor
    sigmas: Tensor
    extra_args: Mapping[str, Any]
    callback: Callback | None
    disable: bool | None

    def evaluate(self, x: Tensor, t: Tensor) -> Tensor:
        """D(x; sigma), in the dtype of the caller's x, as in k-diffusion."""
        sigma = torch.full((len(self.x),), float(t[0]), dtype=x.dtype, device=x.device)
        return self.model(x, sigma, **self.extra_args)

    def report(self, x: Tensor, i: int, sigma: Tensor, sigma_hat: Tensor, denoised: Tensor) -> None:
        if self.callback is not None:
            facts = {"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma_hat, "denoised": denoised}
            self.callback(facts)


def run_tableau(call: Call, tableau: Tableau, noise: Noise | None) -> Tensor:
    """The sample; the callback is called once a step, between the evaluation and the step."""
    solver = Solver(tableau, "sample", noise)
    evaluate = checked(call.evaluate, solver)
    state, step = solver.init(call.x), -1
    for row in tqdm(tableau.rows, unit="evaluation", disable=call.disable):
        x = state.x.to(call.x.dtype)
        denoised = evaluate(x, row.at.t.reshape(1))
        if row.step > step:
            call.report(x, row.step, call.sigmas[row.step], row.at.t.to(call.sigmas), denoised)
        step = row.step
        state = solver.advance(_edited(state, x), denoised)
    return state.x.to(call.x.dtype)


def _edited(state: State, x: Tensor) -> State:
    """The state with what the model or the callback changed in place of ``x``, its newest point.

    Only an edit is added to a state that is more precise than x.
    """
    if x is state.x:
        return state
    moved = state.x + (x.to(state.x) - state.x.to(x).to(state.x))
    return state._replace(points=(moved, *state.points[1:]))


def run_adaptive(call: Call, grid: Grid, settings: Adaptive) -> Tensor:
    """The sample by one adaptive step size for the whole batch, from the first to the last level.

    The batch is one sample of the integration, since ``extra_args`` may have rows for its samples;
    the callback is called at every evaluation.
    """
    bar, numbers = tqdm(unit="evaluation", disable=call.disable), count()

    def network(batch: Tensor, t: Tensor) -> Tensor:
        x = batch[0].to(call.x.dtype, copy=True)
        denoised = call.evaluate(x, t)
        sigma = t[0].to(call.sigmas)
        call.report(x, next(numbers), sigma, sigma, denoised)
        if not torch.equal(x, batch[0].to(x)):
            raise ValueError(
                "The model or the callback edited x in place, which a sampler with adaptive step "
                "size can't take over; take one on a fixed grid."
            )
        bar.update()
        return denoised[None]

    with bar:
        start = None if grid.start.pure_noise else float(grid.start.rho)
        found = sample_adaptive(
            Denoiser(network, _between(grid), "sample"),
            call.x[None],
            settings=settings,
            sigma_max=start,
            final="zero" if grid.end.clean else "sigma_min",
        )
    if not bool(found.within_tolerance):
        warnings.warn(
            f"The limit of {settings.max_nfe} evaluations was reached before the tolerance; pass a "
            "larger max_nfe, rtol or atol.",
            stacklevel=4,
        )
    return found.x[0]


def _between(grid: Grid) -> Schedule:
    """The schedule, trained between the first and the last positive level of a grid."""
    levels = grid.points.t[:-1] if grid.end.clean else grid.points.t
    if len(levels) < 2:
        raise ValueError(
            f"The sigmas are {float(levels[0]):.6g} and 0; a sampler with adaptive step size goes "
            "from the first to the last positive one, so give two of these."
        )
    low, high = float(levels[-1]), float(levels[0])
    if isinstance(grid.schedule, FlowMatching):
        return FlowMatching(u_min=low)
    return EDM(low, high)
