"""A tuned sampler, and the file that it is kept in."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired

import torch
from pydantic import ConfigDict
from typing_extensions import TypedDict

from samplers.files import checked, parse_json
from samplers.grid import Grid
from samplers.notebook import html_table
from samplers.schedule import Schedule
from samplers.tableau import Tableau
from samplers.tuning.description import described, texts_of
from samplers.tuning.file import read_file, write_file
from samplers.tuning.levels import levels_of, plain
from samplers.tuning.purpose import (
    SAME_LEVEL,
    Facts,
    LevelRange,
    Scores,
    check_range,
    differences,
    in_order,
    same_level,
    warn_of,
    with_tuple,
)
from samplers.tuning.table import Table, resampled

_FORMAT = "samplers.tuned/1"


class About(Facts):
    """What a sampler was tuned for, and how well it did.

    Attributes:
        base: the untuned sampler, grid and last noise level that it is compared with.
        learned: the parts that were learned.
        memory: how many predictions a row may use; None for all.
        objective: the distance to the teacher's samples that was minimised.
        held_out: the number of samples that the scores are of.
        teacher: the sampler and its steps.
        teacher_error: the relative error of the teacher's samples.
        before, after: scores of the base and of the tuned sampler.
        interpolated_from: the number of evaluations of the sampler that this one was made of, whose
            scores these are; only there after :meth:`TunedSampler.resampled`.
    """

    base: str
    learned: list[Literal["grid", "times", "weights"]]
    memory: int | None
    objective: str
    held_out: int
    teacher: str
    teacher_error: float
    before: Scores
    after: Scores
    interpolated_from: NotRequired[int]


class _File(TypedDict):
    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    format: str
    nfe: int
    levels: list[float | None]
    times: list[float | None]
    weights: list[list[float]]
    about: About


@dataclass(frozen=True, eq=False, repr=False)
class TunedSampler:
    r"""A sampler that was learned for a network, on its own grid.

    With y = x / alpha and rho = sigma / alpha, row k evaluates the network at y_k as if its half
    log-SNR were ``table.times[k]``, and appends

    .. math:: y_{k+1} = r \, y_k + (1 - r) \sum_j w_{kj} D_{k-j}, \qquad
        r = \frac{\rho_{k+1}}{\rho_k}, \qquad \sum_j w_{kj} = 1

    (see :mod:`samplers.tuning.table`), so that it is exact on data concentrated at one point, and
    the same for every schedule and prediction type in which the network may be written. Whatever
    takes the name of a sampler takes this object, without a number of steps and a grid.

    Attributes:
        table: levels, times and weights.
        about: what it was tuned for, and its scores.

    Raises ValueError for numbers that are no sampler.
    """

    table: Table
    about: About

    def __post_init__(self) -> None:
        _check(self.table)
        _check_trained(self.table, self.about["trained_range"])

    def __repr__(self) -> str:
        before, after = (self.about[name]["geometric_mean"] for name in ("before", "after"))
        return (
            f"TunedSampler(NFE {self.nfe}, relative error {after:.3g} on {self.about['held_out']} "
            f"held-out samples; {self.about['base']}: {before:.3g})"
        )

    @property
    def nfe(self) -> int:
        """Network evaluations of a run."""
        return self.table.nfe

    @property
    def steps(self) -> int:
        """The steps of its grid: one network evaluation in each."""
        return self.nfe

    @property
    def description(self) -> str:
        """A description: what it was tuned for, its scores, and its numbers."""
        return described(self.table, self.about)

    def _repr_html_(self) -> str:
        """A table of the rows, for notebooks."""
        width = self.table.weights.shape[1]
        head = ["sigma / alpha", "given", *(f"D[{lag}]" for lag in range(width))]
        rows = [[*row, *[""] * (len(head) - len(row))] for row in texts_of(self.table)]
        return html_table(repr(self), head, rows)

    def resampled(self, nfe: int) -> TunedSampler:
        """The sampler with another number of evaluations, interpolated at equal fractions of the
        run.

        It was not tuned there: the scores stay those of this one. Raises ValueError below two
        evaluations, of this sampler or the other.
        """
        about: About = {**self.about, "interpolated_from": self.nfe}
        return TunedSampler(resampled(self.table, nfe), about)

    def grid(self, schedule: Schedule) -> Grid:
        """The grid that it was tuned on.

        Raises ValueError for a schedule with another range of noise levels.
        """
        check_range(self.about["trained_range"], schedule, "sampler was tuned")
        return self.table.grid(schedule)

    def tableau(self, schedule: Schedule) -> Tableau:
        """The tableau on a schedule."""
        self.grid(schedule)
        return self.table.tableau(schedule)

    def __call__(self, grid: Grid) -> Tableau:
        """The tableau on its own grid; ValueError for another one."""
        own = self.grid(grid.schedule)
        if grid.steps != own.steps or not torch.allclose(grid.points.sigma, own.points.sigma):
            raise ValueError(
                f"This sampler was tuned on its own grid of {own.steps} steps, so it can't be run "
                f"on another one, of {grid.steps}; omit the steps and the grid."
            )
        return self.table.tableau(grid.schedule)

    @property
    def digest(self) -> str:
        """The SHA-256 of its file."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def check_purpose(
        self,
        weights: str | None = None,
        guidance: float | None = None,
        interval: tuple[float, float] | None = None,
        rescale: float = 0.0,
        *,
        stacklevel: int = 2,
    ) -> None:
        """Warn if it was tuned for other weights, or for another guidance.

        Args:
            weights: what identifies those of the network, see :class:`samplers.Purpose`; None if
                that is not known.
            guidance: the scale; None if it is not known.
            interval: the noise levels between which it is on; None for all.
            rescale: the share of it that is rescaled.
            stacklevel: of :func:`warnings.warn`.
        """
        found = differences(self.about, weights, guidance, interval, rescale)
        warn_of("sampler was tuned", found, stacklevel)

    def to_dict(self) -> dict[str, Any]:
        """The sampler as plain values, such as a config holds, which :meth:`from_dict` reads back
        exactly."""
        levels, times, weights = self.table
        return {
            "format": _FORMAT,
            "nfe": self.nfe,
            "levels": [plain(level) for level in levels.tolist()],
            "times": [plain(level) for level in times.tolist()],
            "weights": weights.tolist(),
            "about": in_order(self.about, About),
        }

    def to_json(self) -> str:
        """The sampler as JSON, which :meth:`from_json` reads back exactly."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> TunedSampler:
        """Read what :meth:`to_json` wrote. Raises ValueError for anything else."""
        return cls.from_dict(parse_json(text))

    @classmethod
    def from_dict(cls, data: object) -> TunedSampler:
        """Read what :meth:`to_dict` returned. Raises ValueError for anything else."""
        if not isinstance(data, Mapping) or data.get("format") != _FORMAT:
            raise ValueError(f"its format is not {_FORMAT!r}")
        found = checked(_File, {**data, "about": with_tuple(data.get("about"))})
        rows = found["weights"]
        if len({len(row) for row in rows}) != 1 or not rows[0]:
            raise ValueError("its rows have no weights, or not equally many")
        if found["nfe"] != len(rows):
            raise ValueError(f"it has {len(rows)} rows, and {found['nfe']} evaluations")
        levels = levels_of(found["levels"])
        table = Table(levels, levels_of([*found["times"], None])[:-1], _tensor(rows))
        return cls(table, found["about"])

    def save(self, path: Path | str) -> None:
        """Write the sampler to a JSON file, atomically."""
        write_file(path, self.to_json())


def load_sampler(path: Path | str) -> TunedSampler:
    """Read a tuned sampler from its file.

    Raises TunedError for a file that can't be read, or is not one of a tuned sampler.
    """
    return read_file(path, "tuned sampler", "samplers.tune", TunedSampler.from_json)


def _check_trained(table: Table, trained: LevelRange) -> None:
    """Raise ValueError unless the network is evaluated on levels of its training, from the
    noisiest on."""
    noisiest, cleanest = trained
    if not same_level(noisiest, plain(float(table.levels[0]))):
        raise ValueError("its first level is not the noisiest one of its network")
    low = -math.inf if noisiest is None else noisiest - SAME_LEVEL
    high = math.inf if cleanest is None else cleanest + SAME_LEVEL
    if bool((table.times < low).any()) or bool((table.times > high).any()):
        raise ValueError("its network is given levels that it was not trained on")


def _tensor(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _check(table: Table) -> None:
    levels, times, weights = table
    rows = weights.shape[0] if weights.ndim == 2 else 0
    if rows < 1 or levels.shape != (rows + 1,) or times.shape != (rows,):
        raise ValueError("its levels, times and weights are not of one number of rows")
    if not bool((levels.diff() > 0).all()):
        raise ValueError("its noise does not fall from row to row")
    later = times[1:] if bool(levels[0].isinf()) else times
    if times[0] != levels[0]:
        raise ValueError("its first time is not that of its first level")
    if not bool(later.isfinite().all()) or not bool(weights.isfinite().all()):
        raise ValueError("its numbers are not finite")
    if bool((weights.sum(dim=1) - 1).abs().max() > 1e-9 * weights.abs().max()):
        raise ValueError("the weights of a row do not sum to one")
    if bool(weights.triu(diagonal=1).any()):
        raise ValueError("a row uses a prediction from before the first")
