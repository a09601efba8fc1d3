"""A fitted grid, and the file that it is kept in."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired

from pydantic import ConfigDict
from torch import Tensor
from typing_extensions import TypedDict

from samplers.files import checked, parse_json
from samplers.grid import Grid
from samplers.schedule import Schedule
from samplers.tuning.description import error_lines, purpose_lines, rho_texts
from samplers.tuning.file import read_file, write_file
from samplers.tuning.levels import levels_of, plain, points_at_levels
from samplers.tuning.purpose import (
    Facts,
    Scores,
    check_range,
    differences,
    in_order,
    warn_of,
    with_tuple,
)

_FORMAT = "samplers.grid/1"

Criterion = Literal["error", "geometry"]
"""What is minimised: the estimated error of the sampler, or the cost of Euler steps (GITS)."""


class AboutGrid(Facts):
    """What a grid was fitted for, and how well it did.

    Attributes:
        data_scale: the root mean square of the data; 1 if it is missing.
        sampler: that the levels are for.
        criterion: by which they were chosen.
        base: the grid that they are compared with.
        pilots: the number of samples that it was fitted on, which the scores are of, too.
        evaluations: of the network, that the fit took in all.
        before, after: scores of the base and of the fitted grid.
    """

    data_scale: NotRequired[float]
    sampler: str
    criterion: Criterion
    base: str
    pilots: int
    evaluations: int
    before: Scores
    after: Scores


class _File(TypedDict):
    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    format: str
    steps: int
    levels: list[float | None]
    about: AboutGrid


@dataclass(frozen=True, eq=False, repr=False)
class FittedGrid:
    """Noise levels that were fitted for a network and a sampler, on whatever schedule it is.

    Whatever takes the name of a spacing takes this object, without a number of steps.

    Attributes:
        levels: the half log-SNR of the points [steps + 1]; -inf for pure noise, +inf for clean
            data.
        about: what it was fitted for, and its scores.

    Raises ValueError for numbers that are no grid.
    """

    levels: Tensor
    about: AboutGrid

    def __post_init__(self) -> None:
        if self.levels.ndim != 1 or len(self.levels) < 2:
            raise ValueError("it has no step")
        if not bool((self.levels.diff() > 0).all()) or not bool(self.levels[1:-1].isfinite().all()):
            raise ValueError("its noise does not fall from level to level")
        if not 0 < self._data_scale < math.inf:
            raise ValueError(f"its scale of the data is {self._data_scale}")

    @property
    def _data_scale(self) -> float:
        return self.about.get("data_scale", 1.0)

    @property
    def steps(self) -> int:
        return len(self.levels) - 1

    def __repr__(self) -> str:
        before, after = (self.about[name]["geometric_mean"] for name in ("before", "after"))
        return (
            f"FittedGrid({self.steps} steps for {self.about['sampler']}, relative error "
            f"{after:.3g} on {self.about['pilots']} samples; {self.about['base']}: {before:.3g})"
        )

    @property
    def description(self) -> str:
        """A description: what it was fitted for, its scores, and its noise levels."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        about = self.about
        yield f"A fitted grid of {self.steps} steps for the sampler {about['sampler']}."
        yield ""
        yield from purpose_lines("Fitted", about)
        yield f"Criterion: {about['criterion']}, in {about['evaluations']:,} network evaluations."
        yield ""
        samples = f"the {about['pilots']} samples that it was fitted to"
        yield from error_lines(samples, "fitted", about)
        yield ""
        yield f"Noise levels sigma / alpha: {', '.join(rho_texts(self.levels))}"

    def grid(self, schedule: Schedule) -> Grid:
        """The grid on a schedule. Raises ValueError for another range of noise levels."""
        check_range(self.about["trained_range"], schedule, "grid was fitted")
        points = points_at_levels(schedule, self.levels)
        return Grid(schedule.with_data_scale(self._data_scale), points)

    def check_purpose(
        self,
        sampler: str,
        weights: str | None = None,
        guidance: float | None = None,
        interval: tuple[float, float] | None = None,
        rescale: float = 0.0,
        *,
        stacklevel: int = 2,
    ) -> None:
        """Warn if it was fitted for another sampler, for other weights or another guidance.

        The arguments are those of :meth:`samplers.TunedSampler.check_purpose`.
        """
        own = self.about
        found = [*differences(own, weights, guidance, interval, rescale)]
        if own["sampler"] != sampler:
            found.append(f"the sampler {own['sampler']!r}")
        warn_of("grid was fitted", found, stacklevel)

    def to_dict(self) -> dict[str, Any]:
        """The grid as plain values, such as a config holds, which :meth:`from_dict` reads back
        exactly."""
        levels = [plain(level) for level in self.levels.tolist()]
        about = in_order(self.about, AboutGrid)
        return {"format": _FORMAT, "steps": self.steps, "levels": levels, "about": about}

    def to_json(self) -> str:
        """The grid as JSON, which :meth:`from_json` reads back exactly."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> FittedGrid:
        """Read what :meth:`to_json` wrote. Raises ValueError for anything else."""
        return cls.from_dict(parse_json(text))

    @classmethod
    def from_dict(cls, data: object) -> FittedGrid:
        """Read what :meth:`to_dict` made. Raises ValueError for anything else."""
        if not isinstance(data, dict) or data.get("format") != _FORMAT:
            raise ValueError(f"its format is not {_FORMAT!r}")
        found = checked(_File, {**data, "about": with_tuple(data.get("about"))})
        made = cls(levels_of(found["levels"]), found["about"])
        if made.steps != found["steps"]:
            raise ValueError(f"it has {made.steps} steps, not {found['steps']}")
        return made

    def save(self, path: Path | str) -> None:
        """Write the grid to a JSON file, atomically."""
        write_file(path, self.to_json())


def load_grid(path: Path | str) -> FittedGrid:
    """Read a fitted grid from its file.

    Raises TunedError for a file that can't be read, or is not one of a fitted grid.
    """
    return read_file(path, "fitted grid", "samplers.fit_grid", FittedGrid.from_json)
