"""The state of a run: weights, their average and the optimiser, in memory and on disk."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from pydantic import ConfigDict
from torch import Tensor, nn
from typing_extensions import TypedDict

from samplers.files import checked, refuse_special, replacing
from samplers.training.config import FREE, TrainingConfig, average_decay, learning_rate
from samplers.training.draws import DROPOUT, OBJECTIVE, PENALTY, derived_seed, seeded

Objective = Callable[[nn.Module, Any, torch.Generator], Tensor]
"""``objective(model, batch, generator) -> scalar``; its random numbers come from the generator,
which is on the CPU, so that they are the same on every device."""


class Learner:
    """The state of a run: the weights, their average and the optimiser."""

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        objective: Objective,
        penalty: Objective | None,
        config: TrainingConfig,
    ) -> None:
        self.accelerator, self.config = accelerator, config
        self.objective, self.penalty = objective, penalty
        self.bare = model
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.average = _copied(model).to(accelerator.device)
        optimizer = torch.optim.AdamW(
            self.trained, config.learning_rate, config.betas, weight_decay=config.weight_decay
        )
        self.model, self.optimizer = accelerator.prepare(model.train(), optimizer)
        self.measured: list[Tensor] = []
        self.since = time.perf_counter()

    def update(self, step: int, batches: Iterator[Any]) -> None:
        """One update of the weights and of their average."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, step)
        for part in range(self.config.accumulation):
            batch = send_to_device(next(batches), self.accelerator.device)
            position = (step, self.accelerator.process_index, part)
            self.measured.append(self._learn(batch, position))
        update_average(self.average, self.bare, average_decay(self.config, step))

    def _learn(self, batch: Any, position: tuple[int, int, int]) -> Tensor:
        """Backpropagate one part of a batch: loss, penalty, norm of the gradient (last part)."""
        seed = self.config.seed
        torch.manual_seed(derived_seed(seed, DROPOUT, *position))
        with self.accelerator.accumulate(self.model):
            loss = self.objective(self.model, batch, seeded(seed, OBJECTIVE, *position))
            extra = norm = torch.zeros_like(loss)
            if self.penalty is not None:
                extra = self.penalty(self.model, batch, seeded(seed, PENALTY, *position))
            self.accelerator.backward(loss + extra)
            if self.accelerator.sync_gradients:
                norm = self.accelerator.clip_grad_norm_(self.trained, self.config.gradient_clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return torch.stack([loss.detach(), extra.detach(), norm.to(loss)])

    def measure(self, done: int) -> dict[str, float]:
        """The line of the log after ``done`` updates: means since the previous line."""
        updates = len(self.measured) // self.config.accumulation
        total = self.accelerator.reduce(torch.stack(self.measured).sum(dim=0), reduction="mean")
        loss, extra, norm = (total / updates).tolist()
        loss, extra = loss / self.config.accumulation, extra / self.config.accumulation
        self._check_finite(loss + extra, norm, done)
        seconds = time.perf_counter() - self.since
        self.measured, self.since = [], time.perf_counter()
        return {
            "step": done,
            "loss": loss,
            "penalty": extra,
            "learning_rate": learning_rate(self.config, done - 1),
            "grad_norm": norm,
            "samples_per_second": updates * self.config.batch_size / seconds,
        }

    def _check_finite(self, loss: float, norm: float, done: int) -> None:
        # In float16 a gradient may overflow: the loss scaler then skips the update.
        if math.isfinite(loss) and (math.isfinite(norm) or self.accelerator.scaler is not None):
            return
        raise FloatingPointError(
            f"At step {done} the loss is {loss} and the norm of its gradient {norm}; what was "
            "saved before is kept. Lower the learning rate, and start in a new folder."
        )

    def save(self, path: Path, done: int) -> None:
        """Write the checkpoint atomically; returns when it exists for all processes."""
        if self.accelerator.is_main_process:
            state = {
                "step": done,
                "config": dataclasses.asdict(self.config),
                "model": trained_state(self.bare),
                "average": _like(self.average.state_dict(), trained_state(self.bare)),
                "optimizer": self.optimizer.state_dict(),
                "scaler": _scaler_state(self.accelerator),
            }
            with replacing(path) as part:
                torch.save(state, part)
        self.accelerator.wait_for_everyone()

    def load(self, path: Path) -> int:
        """Load the state of a checkpoint; returns the number of updates done."""
        state = _read(path)
        _check_same(state["config"], dataclasses.asdict(self.config), path)
        own = _shapes(trained_state(self.bare))
        if not own == _shapes(state["model"]) == _shapes(state["average"]):
            raise ValueError(
                f"The checkpoint {path} trains other weights than this model does; take another "
                "folder for a new run."
            )
        self.bare.load_state_dict({**self.bare.state_dict(), **state["model"]})
        self.average.load_state_dict({**self.average.state_dict(), **state["average"]})
        self._load_optimizer(state, path)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        return state["step"]

    def _load_optimizer(self, state: _State, path: Path) -> None:
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except Exception as error:  # torch checks nothing of a state but the number of its groups
            raise ValueError(
                f"The state of the optimiser in {path} is not that of this training; take another "
                "folder."
            ) from error


class _State(TypedDict):
    """What a checkpoint holds."""

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)  # type: ignore[misc]

    step: int
    config: dict[str, Any]
    model: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]


def _read(path: Path) -> _State:
    """Read a file of :meth:`Learner.save`; ValueError if there is none, or it is truncated."""
    if not path.exists():
        raise ValueError(f"There is no checkpoint at {path}; train first, or name another folder.")
    refuse_special(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises any for damaged bytes
        raise ValueError(
            f"The checkpoint {path} can't be read; delete it to begin anew, or take another folder."
        ) from error
    try:
        return checked(_State, state)
    except ValueError as error:
        raise ValueError(
            f"{path} is no checkpoint of a training here ({error}); take another folder."
        ) from error


def _shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of a model without the parameters that are not trained."""
    named = model.named_parameters(remove_duplicate=False)
    fixed = {name for name, weight in named if not weight.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in fixed}


def _like(state: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: state[name] for name in other}


def _copied(model: nn.Module) -> nn.Module:
    """A frozen copy in evaluation mode, which shares the parameters that are not trained."""
    fixed = {id(weight): weight for weight in model.parameters() if not weight.requires_grad}
    return copy.deepcopy(model, fixed).requires_grad_(False).eval()


def _scaler_state(accelerator: Accelerator) -> dict[str, Any]:
    """The state of the loss scaler, which only float16 has."""
    return {} if accelerator.scaler is None else accelerator.scaler.state_dict()


def _check_same(old: dict[str, Any], new: dict[str, Any], path: Path) -> None:
    for name in sorted(new.keys() - FREE):
        if old.get(name) != new[name]:
            raise ValueError(
                f"The checkpoint {path} was made with {name} = {old.get(name)!r}, this run has "
                f"{new[name]!r}; use the same settings, or another folder for a new run."
            )


def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """``average <- decay average + (1 - decay) model``; buffers are copied."""
    for mean, parameter in zip(average.parameters(), model.parameters(), strict=True):
        if parameter.requires_grad:
            mean.lerp_(parameter.detach(), 1 - decay)
    for copied, buffer in zip(average.buffers(), model.buffers(), strict=True):
        copied.copy_(buffer)


def load_average(checkpoint: Path, model: nn.Module) -> int:
    """Load the averaged weights of a checkpoint into ``model``; returns the number of updates.

    Raises ValueError if there is no checkpoint, or it is of another model.
    """
    state = _read(checkpoint)
    known = _shapes(model.state_dict())
    if any(known.get(name) != shape for name, shape in _shapes(state["average"]).items()):
        raise ValueError(f"The checkpoint {checkpoint} is of another model than this one.")
    model.load_state_dict({**model.state_dict(), **state["average"]})
    return int(state["step"])
