"""The iteration: Adam on the parameters of a table, with exact resume."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import ConfigDict
from torch import Tensor
from tqdm.auto import tqdm
from typing_extensions import TypedDict

from samplers.files import checked, refuse_special, replacing
from samplers.tuning.config import TuningConfig
from samplers.tuning.objective import Loss, Score, name_of
from samplers.tuning.parameters import Parameters
from samplers.tuning.problem import Problem
from samplers.tuning.processes import gathered, is_main, own_rows, summed
from samplers.tuning.table import Table

_BETAS = (0.9, 0.99)
_EPS = 1e-12
_WARMUP = 0.1
_PROBES, _PROBE_EPOCH = 8, 2**31
_NOISE_STEP = 0.25
"""A step of a training noise in the relaxed objective, as a share of the radius."""


class Found(NamedTuple):
    """A table, and its mean loss on the held-out samples."""

    table: Table
    value: float


class TableLearner:
    """The state of a run: parameters, moments of the optimiser, moved noise, the best table.

    It is a function of its settings and of the number of updates. The order of the samples at an
    update follows from the seed.
    """

    def __init__(
        self,
        training: Problem,
        held_out: Problem,
        start: Table,
        method: Callable[[Tensor], Tensor] | None,
        loss: Loss,
        config: TuningConfig,
        acceptable: Score | None,
    ) -> None:
        self.training, self.held_out, self.loss, self.config = training, held_out, loss, config
        self.acceptable, self.start = acceptable, start
        self.parameters = Parameters.of(start, training.model.schedule, config.learn, method)
        self.leaves = self.parameters.moving
        self.moments = {name: torch.zeros(2, *leaf.shape).double() for name, leaf in self._named()}
        self.scales = {name: torch.ones_like(leaf) for name, leaf in self._named()}
        self.moved = torch.zeros_like(training.noise) if config.radius else None
        self.best: Found | None = None
        self.done = 0

    def learn(self, path: Path | None, key: str, progress: bool) -> Found | None:
        """Run to the end, from the state in ``path`` if there is one; the best table, if any."""
        config = self.config
        key = self._key(key)
        if path is not None and path.exists():
            self._load(path, key)
        if not self.done:
            self.scales = self._scales()
            self._keep_best()
        bar = tqdm(
            range(self.done, config.iterations),
            desc=f"NFE {self.start.nfe}",
            initial=self.done,
            total=config.iterations,
            disable=not progress,
        )
        for step in bar:
            self._update(step)
            self.done = step + 1
            if self.done % config.check_every == 0 or self.done == config.iterations:
                self._keep_best()
                bar.set_postfix(loss=self.best.value if self.best else math.nan)
                if path is not None and is_main():
                    self._save(path, key)
        return self.best

    def _named(self) -> list[tuple[str, Tensor]]:
        return [(name, leaf.detach()) for name, leaf in self.leaves.items()]

    def _scales(self) -> dict[str, Tensor]:
        r"""The changes of the numbers that together move the samples by their typical error.

        Weights of a late step, or of a good start, must be moved by far less than others. With
        independent normal v_i, the square of the gradient of ``sum_i v_i . x_i`` has the mean
        ``sum_i |dx_i / d theta|^2``.
        """
        count = min(self.config.batch_size, len(self.training))
        part, own = self.training.rows(torch.arange(count)), own_rows(count)
        x = part.rows(own).solved(self.parameters.table)
        whole = gathered(x.detach(), count)
        error = (whole - part.targets).double().flatten(1).norm(dim=1).clamp(min=1e-30)
        numbers = sum(leaf.numel() for leaf in self.leaves.values())
        typical = error.log().mean().exp().cpu() / math.sqrt(numbers)  # as they all move together
        generator = _generator(self.config.seed, _PROBE_EPOCH)
        squares = {name: torch.zeros_like(leaf) for name, leaf in self._named()}
        for _ in range(_PROBES):
            v = torch.randn(whole.shape, generator=generator, dtype=torch.float64).to(x)
            leaves = list(self.leaves.values())
            found = torch.autograd.grad(x, leaves, v[own], retain_graph=True, allow_unused=True)
            for name, gradient in zip(squares, summed(found), strict=True):
                squares[name] += 0.0 if gradient is None else gradient.square()
        moved = {name: (square / (_PROBES * count)).sqrt() for name, square in squares.items()}
        return {name: (typical / by.clamp(min=1e-30)).clamp(max=1.0) for name, by in moved.items()}

    def _update(self, step: int) -> None:
        """One update, on a minibatch of which each process solves its share."""
        config = self.config
        rows = _batch(config, step, len(self.training))
        part, own = self.training.rows(rows), own_rows(len(rows))
        x = part.noise
        if self.moved is not None:
            x = (x + self.moved[rows.to(x.device)]).requires_grad_()
        found = part.rows(own).solved(self.parameters.table, x[own.to(x.device)])
        whole = gathered(found.detach(), len(rows)).requires_grad_()
        value = self.loss(whole, part.targets).mean()
        towards = torch.autograd.grad(value, whole)[0][own.to(x.device)]
        wanted = [*self.leaves.values(), *([] if self.moved is None else [x])]
        gradients = summed(torch.autograd.grad(found, wanted, towards, allow_unused=True))
        rate = config.learning_rate * _schedule(step, config.iterations)
        for name, gradient in zip(self.leaves, gradients, strict=False):
            if gradient is not None:
                self._move(name, gradient.nan_to_num(0.0, 0.0, 0.0), rate, step)
        self.parameters.hold()
        if self.moved is not None and gradients[-1] is not None:
            self._move_noise(rows.to(x.device), gradients[-1])

    @torch.no_grad()
    def _move(self, name: str, gradient: Tensor, rate: float, step: int) -> None:
        """A step of Adam (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980) in the scales."""
        powers = torch.stack([gradient, gradient.square()])
        betas = torch.tensor(_BETAS, dtype=torch.float64).reshape(2, *[1] * gradient.ndim)
        self.moments[name].mul_(betas).add_((1 - betas) * powers)
        mean, square = self.moments[name] / (1 - betas ** (step + 1))
        self.leaves[name].sub_(rate * self.scales[name] * mean / (square.sqrt() + _EPS))

    def _move_noise(self, rows: Tensor, gradient: Tensor) -> None:
        """A step of each noise against its gradient, projected onto the ball around it."""
        assert self.moved is not None
        radius = self.config.radius * float(self.training.noise.double().square().mean().sqrt())
        unit = gradient / _rms(gradient).clamp(min=1e-30)
        moved = self.moved[rows] - _NOISE_STEP * radius * unit
        self.moved[rows] = moved * (radius / _rms(moved).clamp(min=1e-30)).clamp(max=1.0)

    def _keep_best(self) -> None:
        """Keep the table if it is the best on the held-out samples, and no score is worse."""
        table = self.parameters.table.detached
        x = self.held_out.samples(table, self.config.batch_size)
        value = float(self.loss(x, self.held_out.targets).mean())
        if not value < (math.inf if self.best is None else self.best.value):
            return
        score = Score.of(x, self.held_out.targets)
        if self.acceptable is None or score.no_worse_than(self.acceptable):
            self.best = Found(table, value)

    # On disk.

    def _key(self, key: str) -> str:
        """A hash of everything that the run is a function of."""
        start = (values.tolist() for values in self.start)
        facts = [key, name_of(self.loss), dataclasses.asdict(self.config), *start]
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def _save(self, path: Path, key: str) -> None:
        state = {
            "key": key,
            "done": self.done,
            "leaves": {name: leaf.detach() for name, leaf in self.leaves.items()},
            "moments": self.moments,
            "scales": self.scales,
            "moved": self.moved,
            "best": None if self.best is None else tuple(self.best.table),
            "value": math.inf if self.best is None else self.best.value,
        }
        with replacing(path) as part:
            torch.save(state, part)

    def _load(self, path: Path, key: str) -> None:
        state = _read(path)
        if state["key"] != key:
            raise ValueError(
                f"{path} holds a run with other settings, samples or weights; take another folder, "
                "or delete it to begin anew."
            )
        with torch.no_grad():
            for name, leaf in self.leaves.items():
                leaf.copy_(state["leaves"][name])
        self.moments, self.scales = state["moments"], state["scales"]
        self.moved, self.done = state["moved"], state["done"]
        if self.moved is not None:
            self.moved = self.moved.to(self.training.noise.device)
        best = state["best"]
        self.best = None if best is None else Found(Table(*best), state["value"])


class _State(TypedDict):
    """What the file of a run holds."""

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)  # type: ignore[misc]

    key: str
    done: int
    leaves: dict[str, Tensor]
    moments: dict[str, Tensor]
    scales: dict[str, Tensor]
    moved: Tensor | None
    best: tuple[Tensor, Tensor, Tensor] | None
    value: float


def _read(path: Path) -> _State:
    refuse_special(path)
    try:
        return checked(_State, torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # the unpickler raises any for damaged bytes
        raise ValueError(
            f"{path} can't be read as the state of a tuning; delete it to begin anew."
        ) from error


def _batch(config: TuningConfig, step: int, count: int) -> Tensor:
    """The rows of an update, consecutive in an endless sequence of shuffled epochs."""
    size = min(config.batch_size, count)
    places = range(step * size, (step + 1) * size)
    orders = {place // count: None for place in places}
    shuffled = {
        epoch: torch.randperm(count, generator=_generator(config.seed, epoch)) for epoch in orders
    }
    return torch.stack([shuffled[place // count][place % count] for place in places])


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed << 32) + epoch)


def _schedule(step: int, iterations: int) -> float:
    """The factor of the learning rate: a linear warmup, times a cosine that falls to zero.

    Without the warmup the first updates, in which Adam moves all numbers alike, overshoot.
    """
    return (
        min(1.0, (step + 1) / (_WARMUP * iterations))
        * (1 + math.cos(math.pi * step / iterations))
        / 2
    )


def _rms(x: Tensor) -> Tensor:
    """The root mean square of each sample, shaped to broadcast."""
    return x.square().mean(dim=tuple(range(1, x.ndim)), keepdim=True).sqrt()
