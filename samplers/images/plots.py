"""Layer 6. Plots: what a tableau, a grid and a trajectory look like."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from samplers.grid import Grid
from samplers.images.figures import Cell, Figure, plot_area, table
from samplers.images.pixels import to_images
from samplers.images.sheets import spread_out
from samplers.tableau import Line, Tableau, columns_of

_NUMBERED = 40
"""The largest number of lines of a tableau for which coefficients are written into the cells."""
_STRIP = 10
"""The largest number of states of a trajectory of images that are shown."""


def plot_tableau(tableau: Tableau) -> Figure:
    """A heat map of the coefficients: a line for each appended point, from the first at the top.

    The columns are the points x[lag] and the predictions D[lag] of x_0, where lag 0 is the newest,
    and the noise z. A line is named by the network evaluation before it, and by sigma / alpha where
    that is and where the new point is. Colours follow the logarithm of the coefficient.
    """
    lines = tableau.lines
    names = columns_of(lines)
    values = np.array([[line.coefficients.get(name, 0.0) for name in names] for line in lines])
    values[values == 0] = np.nan
    numbered = len(lines) <= _NUMBERED
    size = (2.5 + 0.75 * len(names), 1 + (0.24 * len(lines) if numbered else 7))
    figure, axes = plot_area("", "point", size)
    largest = np.nanmax(np.abs(values))
    norm = SymLogNorm(largest / 1000, vmin=-largest, vmax=largest)
    image = axes.imshow(values, cmap="RdBu_r", norm=norm, aspect="auto", interpolation="nearest")
    axes.set_title(repr(tableau))
    axes.set_xticks(range(len(names)), names)
    axes.xaxis.tick_top()
    if numbered:
        axes.set_ylabel("evaluation: at σ/α → new point at σ/α")
        axes.set_yticks(range(len(lines)), [_label(line) for line in lines])
        _write_numbers(axes, values, norm)
    else:
        figure.colorbar(image, label="coefficient")
    return figure


def _label(line: Line) -> str:
    new = f"{float(line.reached.rho):.3g}"
    return f"start: {new}" if line.row is None else f"{line.row}: {float(line.at.rho):.3g} → {new}"


def _write_numbers(axes: Axes, values: NDArray[np.float64], norm: SymLogNorm) -> None:
    for (line, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "white" if abs(norm(value) - 0.5) > 0.35 else "black"
            axes.text(column, line, f"{value:.3g}", color=colour, size=8, ha="center", va="center")


def plot_grid(grid: Grid) -> Figure:
    """The noise level sigma / alpha of each point on a logarithmic axis, against the step.

    Pure noise and clean data, whose logarithm is infinite, are triangles at the edges.
    """
    figure, axes = plot_area("step", "noise level σ/α")
    rho = grid.points.rho.detach().numpy()
    steps = np.arange(len(rho))
    finite = (rho > 0) & np.isfinite(rho)
    axes.plot(steps[finite], rho[finite], "o-", markersize=3)
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    edges = axes.get_xaxis_transform()
    if grid.start.pure_noise:
        axes.plot(0, 1, "^", transform=edges, clip_on=False, label="pure noise, α = 0")
    if grid.end.clean:
        axes.plot(grid.steps, 0, "v", transform=edges, clip_on=False, label="clean, σ = 0")
    if not finite.all():
        axes.legend(frameon=False, fontsize=9)
    axes.set_title(repr(grid))
    axes.grid(color="0.9")
    return figure


def plot_trajectory(states: Sequence[Tensor] | Tensor) -> Figure:
    """Plot states between noise and data, such as the trajectory of a :class:`samplers.SampleInfo`.

    Args:
        states: T states of B samples. Images [B, C, H, W] of values from -1 to 1 have a row for
            each sample, and a column for each of at most ten states; points of the plane [B, 2]
            have a line for each sample.

    Raises ValueError for states of another shape.
    """
    found = [state.detach().cpu() for state in states]
    shape = found[0].shape
    if len(shape) == 4:
        return _strip(found)
    if len(shape) == 2 and shape[1] == 2:
        return _paths(torch.stack(found))
    raise ValueError(
        f"The states of a trajectory came in shape {tuple(shape)}; images [B, C, H, W] and points "
        "[B, 2] can be plotted."
    )


def _strip(states: Sequence[Tensor]) -> Figure:
    shown = spread_out(list(enumerate(states)), _STRIP)
    columns = [to_images(images) for _, images in shown]
    rows = [("", [Cell(image) for image in row]) for row in zip(*columns, strict=True)]
    return table("", [f"state {number}" for number, _ in shown], rows)


def _paths(points: Tensor) -> Figure:
    """Trajectories of points [T, B, 2]."""
    figure, axes = plot_area("x", "y", (5, 5))
    x, y = points.double().numpy().transpose(2, 0, 1)
    axes.plot(x, y, color="0.6", linewidth=0.5)
    axes.plot(x[0], y[0], "o", markersize=3, label="start")
    axes.plot(x[-1], y[-1], "o", markersize=3, label="end")
    axes.set_aspect("equal")
    axes.legend(frameon=False, fontsize=9)
    return figure
