"""How tableaux, grids and trajectories look: as text, as HTML in a notebook, as plots."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from samplers import Denoiser, plot_grid, plot_tableau, plot_trajectory, sample
from samplers.grid import make_grid
from samplers.methods.edm import churn
from samplers.registry import registry
from samplers.schedule import EDM, FlowMatching, VPLinear
from samplers.tableau import Tableau


def tableau(name: str, steps: int = 6) -> Tableau:
    return registry()[name].tableau(make_grid(VPLinear(), steps))


def cells(html: str) -> list[list[str]]:
    """The text of an HTML table, its head first."""
    _, *rows = ElementTree.fromstring(html)
    return [[cell.text or "" for cell in row] for row in rows]


def points(line: Line2D) -> list[list[float]]:
    found: list[list[float]] = np.asarray(line.get_xydata()).tolist()
    return found


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_reprs_say_what_it_is() -> None:
    grid = make_grid(EDM(), 6)
    assert repr(grid) == "Grid(EDM, 6 steps, sigma/alpha from 80 to 0)"
    assert (
        repr(registry()["heun"].tableau(grid))
        == "Tableau(deterministic, NFE 11, sigma/alpha from 80 to 0)"
    )
    assert repr(tableau("ancestral")).startswith("Tableau(stochastic, NFE 6,")


def test_html_of_a_grid() -> None:
    grid = make_grid(FlowMatching(), 3, "uniform")
    head, *rows = cells(grid._repr_html_())
    assert head == ["step", "t", "α", "σ", "σ/α", "log(α/σ)"]
    assert rows[0] == ["0", "1", "0", "1", "inf", "-inf"]
    assert rows[-1] == ["3", "0.001", "1", "0", "0", "inf"]
    assert [float(row[4]) for row in rows] == pytest.approx(grid.points.rho.tolist(), rel=1e-5)


def test_html_of_a_tableau() -> None:
    own = tableau("dpmpp-2m")
    head, *rows = cells(own._repr_html_())
    assert head[4:] == ["x[0]", "D[0]", "D[1]"]
    assert [row[0] for row in rows] == [str(number) for number in range(6)]
    assert rows[0][-1] == ""  # the first step knows no older prediction
    for row, line in zip(rows, own.rows, strict=True):
        found = [float(value or 0) for value in row[4:]]
        numbers = torch.cat([line.points, line.predictions], dim=1).flatten().tolist()
        assert sum(found) == pytest.approx(sum(numbers), rel=1e-5)


def test_html_of_a_long_grid_is_short() -> None:
    rows = cells(make_grid(VPLinear(), 1000)._repr_html_())
    assert len(rows) == 1 + 20 + 1 + 20
    assert [row[0] for row in rows[19:23]] == ["18", "19", "…", "981"]


def test_every_point_of_a_row_has_a_line() -> None:
    own = tableau("unipc-2")
    assert len(own.lines) == sum(len(row.noise) for row in own.rows) > own.calls


def test_noise_added_to_the_first_point_is_seen() -> None:
    own = churn(make_grid(EDM(), 4, sigma_max=20.0))
    _, first, *_ = cells(own._repr_html_())
    assert first[0] == "start"
    assert float(first[-1]) == pytest.approx(float(own.start_noise), rel=1e-5) != 0
    (axes,) = plot_tableau(own).axes
    assert axes.get_yticklabels()[0].get_text().startswith("start: ")


def test_a_tableau_is_a_heat_map() -> None:
    own = tableau("ancestral", 5)
    figure = plot_tableau(own)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["x[0]", "D[0]", "z"]
    assert axes.get_yticklabels()[1].get_text().startswith("1: ")
    (image,) = axes.images
    values: NDArray[np.float64] = np.ma.filled(np.ma.asarray(image.get_array()), math.nan)
    assert values[0, 2] == float(own.rows[0].noise)
    assert texts(figure) == [f"{value:.3g}" for value in values.ravel() if not math.isnan(value)]


def test_a_long_tableau_has_a_colour_bar_for_its_numbers() -> None:
    figure = tableau("ddim", 100).plot()
    assert not texts(figure)
    _, bar = figure.axes
    assert bar.get_ylabel() == "coefficient"


@pytest.mark.parametrize("name", ["unipc-3", "euler-maruyama+langevin", "deis-4"])
def test_tableaux_of_every_kind_can_be_plotted(name: str) -> None:
    own = tableau(name)
    assert plot_tableau(own)._repr_png_().startswith(b"\x89PNG")
    assert len(cells(own._repr_html_())) == 1 + len(own.lines)


def test_a_grid_is_a_curve_of_noise_levels() -> None:
    grid = make_grid(FlowMatching(), 8, "uniform")
    (axes,) = plot_grid(grid).axes
    curve, noise, clean = axes.lines
    assert axes.get_yscale() == "log"
    assert points(curve) == [list(point) for point in enumerate(grid.points.rho.tolist())][1:-1]
    assert [noise.get_label(), clean.get_label()] == ["pure noise, α = 0", "clean, σ = 0"]


def test_a_grid_between_finite_levels_has_no_legend() -> None:
    (axes,) = make_grid(EDM(), 8, final="sigma_min").plot().axes
    (curve,) = axes.lines
    assert len(points(curve)) == 9
    assert axes.get_legend() is None


def test_a_trajectory_of_images_is_a_table_of_states() -> None:
    states = torch.rand(21, 3, 1, 8, 8)
    figure = plot_trajectory(states)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:10] == [f"state {n}" for n in (0, 2, 4, 7, 9, 11, 13, 16, 18, 20)]
    assert len(figure.axes) == 3 * 10


def test_a_trajectory_of_points_is_a_line_for_each() -> None:
    states = [torch.randn(5, 2) for _ in range(4)]
    (axes,) = plot_trajectory(states).axes
    paths, ends = axes.lines[:5], axes.lines[5:]
    for number, path in enumerate(paths):
        assert points(path) == [state.double()[number].tolist() for state in states]
    assert [line.get_label() for line in ends] == ["start", "end"]


def test_the_trajectory_of_a_run() -> None:
    model = Denoiser(lambda x, t: torch.zeros_like(x), VPLinear())
    info = sample(model, torch.randn(3, 2), steps=4, return_info="trajectory")
    (axes,) = plot_trajectory(info.trajectory).axes
    assert [len(points(line)) for line in axes.lines] == [5, 5, 5, 3, 3]
    assert points(axes.lines[-1]) == info.x_0.double().tolist()


def test_other_states_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(5, 3\)"):
        plot_trajectory(torch.randn(4, 5, 3))
