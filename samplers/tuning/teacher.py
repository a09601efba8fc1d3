"""The teacher: converged samples from the same noise, computed once and kept in a file."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm.auto import tqdm

from samplers.denoiser import Denoiser, select_rows
from samplers.files import replacing, with_sorted_metadata
from samplers.grid import Grid, make_grid
from samplers.registry import get_sampler
from samplers.sampling import sample
from samplers.tuning.config import TuningConfig
from samplers.tuning.objective import relative_errors
from samplers.tuning.parameters import bounds_of
from samplers.tuning.processes import gathered, is_main, own_rows

_CHECKED = 8
"""Samples that are also computed with twice as many steps."""


class Taught(NamedTuple):
    """Converged samples [N, ...], in the dtype of the noise.

    Attributes:
        error: the geometric mean of their relative distances from samples of twice as many steps.
        key: identifies what they were computed from.
    """

    targets: Tensor
    error: float
    key: str


def teach(
    model: Denoiser,
    x_T: Tensor,
    conditions: Mapping[str, Any],
    config: TuningConfig,
    folder: Path | None,
    progress: bool,
) -> Taught:
    """Compute the converged samples, or read them from a folder that has them.

    Raises ValueError if they have not converged, or the teacher's sampler is stochastic.
    """
    if get_sampler(config.teacher).stochastic:
        raise ValueError(
            f"The teacher {config.teacher!r} is stochastic; take a deterministic sampler, such as "
            "dpmpp-3m."
        )
    key = _key(model, x_T, conditions, config)
    path = None if folder is None else folder / f"teacher-{key[:16]}.safetensors"
    found = None if path is None else _read(path, key, x_T)
    if found is not None:
        return found
    error = _checked_error(model, x_T, conditions, config)
    rows = torch.arange(len(x_T))
    targets = _solved(model, x_T, conditions, config, rows, config.teacher_steps, progress)
    taught = Taught(targets, error, key)
    if path is not None and is_main():
        _write(path, taught)
    return taught


@torch.no_grad()
def _solved(
    model: Denoiser,
    x_T: Tensor,
    conditions: Mapping[str, Any],
    config: TuningConfig,
    rows: Tensor,
    steps: int,
    progress: bool = False,
) -> Tensor:
    """The samples of these rows, in batches, shared among processes."""
    batches = rows[own_rows(len(rows))].split(config.batch_size)
    parts = [
        sample(
            model,
            x_T[part.to(x_T.device)],
            sampler=config.teacher,
            grid=_grid(model, steps),
            conditions=select_rows(conditions, part),
        )
        for part in tqdm(batches, desc="teacher", unit="batch", disable=not progress)
        if len(part)
    ]
    return gathered(torch.cat([x_T[:0], *parts]), len(rows))


def _grid(model: Denoiser, steps: int) -> Grid:
    low = math.exp(-bounds_of(model.schedule).cleanest)
    return make_grid(model.schedule, steps, "log-snr", sigma_min=low)


def _checked_error(
    model: Denoiser, x_T: Tensor, conditions: Mapping[str, Any], config: TuningConfig
) -> float:
    rows, steps = torch.arange(min(_CHECKED, len(x_T))), config.teacher_steps
    once, twice = (
        _solved(model, x_T, conditions, config, rows, count) for count in (steps, 2 * steps)
    )
    error = float(relative_errors(once, twice).log().mean().exp())
    if not error <= config.teacher_tolerance:
        raise ValueError(
            f"The teacher has not converged: samples of {config.teacher!r} with {steps} and with "
            f"{2 * steps} steps differ by {error:.2g} of their size, and at most "
            f"{config.teacher_tolerance:g} is allowed; take more teacher steps, or another teacher."
        )
    return error


@torch.no_grad()
def _key(model: Denoiser, x_T: Tensor, conditions: Mapping[str, Any], config: TuningConfig) -> str:
    """A hash of all that the samples depend on.

    The weights of the network, and the guidance around it, count by two evaluations.
    """
    digest = hashlib.sha256()
    settings = (config.teacher, config.teacher_steps, config.teacher_tolerance)
    functions = (named(model.prediction), named(model.correction))
    facts: tuple[object, ...] = (model.schedule, *functions, settings)
    if model.schedule.data_scale != 1:  # which the schedule does not show
        facts = (*facts, model.schedule.data_scale)
    digest.update(repr(facts).encode())
    rows = torch.arange(min(2, len(x_T)))
    few, given = x_T[rows.to(x_T.device)], select_rows(conditions, rows)
    bounds = bounds_of(model.schedule)
    for lam in (bounds.noisiest, (bounds.noisiest + bounds.cleanest) / 2):
        t = model.schedule.time(torch.tensor(lam).double()).to(few).expand(len(few))
        digest.update(_bytes(model(few, t, **given)))
    for name, value in (("x_T", x_T), *sorted(conditions.items())):
        digest.update(name.encode())
        digest.update(_bytes(value) if isinstance(value, Tensor) else repr(value).encode())
    return digest.hexdigest()


def named(value: object) -> object:
    """A function by its name, for its repr differs from process to process; else the value."""
    if not isinstance(value, FunctionType):
        return value
    return f"{value.__module__}.{value.__qualname__}"


def _bytes(values: Tensor) -> bytes:
    return values.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def _write(path: Path, taught: Taught) -> None:
    facts = {"error": repr(taught.error), "key": taught.key}
    with replacing(path) as part:
        part.write_bytes(
            with_sorted_metadata(save({"targets": taught.targets.cpu().contiguous()}, facts))
        )


def _read(path: Path, key: str, like: Tensor) -> Taught | None:
    """What a run before computed; None if there is none, or it can't be used."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            facts, targets = file.metadata() or {}, file.get_tensor("targets")
        error = float(facts["error"])
    except (KeyError, OSError, SafetensorError, ValueError):
        return None
    fits = facts.get("key") == key and targets.shape == like.shape
    return Taught(targets.to(like), error, key) if fits else None
