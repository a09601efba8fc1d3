"""The page of the Fokker-Planck benchmark: the distances of the authors' networks."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.fokker_planck import AUTHORS, BINS, DISTANCES, RUNS, Run, measure_authors
from benchmarks.report import FOLDER
from examples.fokker_planck.plane import DATA
from samplers.training import seeded


def test_the_authors_histograms_lie_on_points_of_their_square(tmp_path: Path) -> None:
    """64 points from -3.5 to 3.5, so that neighbours are at 1/9, and those of a diagonal at twice
    the square of this. Half the data are at one of two points, and half at the other."""
    run = Run("circles", 10.0)
    first, second = 0, 65
    assert BINS[first].tolist() == [-3.5, -3.5]
    folder = tmp_path / "precomputed_dists"
    folder.mkdir()
    for name, filled in (
        ("ode_64_3000000_100000_800_circles2_10.0", [first]),
        ("sde_64_3000000_100000_800_circles2_10.0", [second]),
        ("truth_64_3000000_circles2", [first, second]),
    ):
        weights = np.zeros(len(BINS))
        weights[filled] = 1 / len(filled)
        np.save(folder / f"weights_{name}.npy", weights)
    assert measure_authors(run, tmp_path) == pytest.approx(
        {"ode_data": 1 / 81, "sde_data": 1 / 81, "ode_sde": 2 / 81}
    )


def test_the_page_shows_all_distances_of_the_authors_as_they_were_measured() -> None:
    measured = json.loads(AUTHORS.read_text())
    page = (FOLDER / "fokker_planck.md").read_text()
    runs = [run for run in RUNS if not run.centred]
    assert len(runs) == 12
    for run in runs:
        line = page[page.index(f"| {run.data} | {run.kind} |") :].splitlines()[0]
        paper = line.strip("| ").split(" | ")[3::2]
        assert paper == [f"{measured[run.name][name]:.4f}" for name in DISTANCES]


def test_their_histogram_of_the_mixture_is_on_their_square() -> None:
    """On +-4 it would be scaled by 8/7, which has the squared distance E|x|^2 / 49."""
    found = json.loads(AUTHORS.read_text())["range"]
    data = DATA["mixture"](100_000, seeded(0))
    scaled = math.sqrt(float(data.square().sum(dim=1).mean()) / 49)
    near, far = (math.sqrt(found[edge]) for edge in ("3.5", "4"))
    assert near < 0.1 * scaled
    assert abs(far - scaled) < near  # by the triangle inequality
