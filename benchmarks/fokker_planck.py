"""The gap between ODE and SDE samples of regularised potentials, and a bound of it by the residual.

    python -m benchmarks.fokker_planck [--runs runs/fokker_planck] [--data mixture circles]
        [--authors ODESDEGap]

Measures the networks that ``examples/fokker_planck/train.py`` trained, as in section 5 of Deveney
et al. 2023: squared Wasserstein distances between samples of the probability-flow ODE, of the
reverse SDE, and of the data, more than 100,000 of each. A run is measured once and kept in
``docs/benchmarks/fokker_planck.json``, so that a measurement that was interrupted goes on.

The distances of the authors' own networks, kept in ``fokker_planck_authors.json`` beside it, are
those of the histograms in a checkout of their code, https://github.com/teojd/ODESDEGap.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import combinations, cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from adjoint.fokker_planck import (
    Distribution,
    GapBound,
    binned,
    bound_terms,
    empirical,
    gap_bound,
    kl_divergence,
    regular_grid,
    wasserstein,
)
from benchmarks.digits import ROOT, Kept
from benchmarks.report import mean_and_error, table, write
from benchmarks.stratified import draw
from samplers.grid import make_grid
from samplers.images.figures import Cell, Figure
from samplers.images.figures import table as picture_table
from samplers.images.files import write_png
from samplers.sampling import build_tableau
from samplers.training import CHECKPOINT, load_average, seeded

sys.path.insert(0, str(ROOT))
from examples.fokker_planck.plane import (
    DATA,
    EDGE,
    STEPS_TRAINED,
    WEIGHTS,
    OrnsteinUhlenbeck,
    PotentialNetwork,
    run_folder,
    score,
)
from examples.points import density

KEPT = ROOT / "docs" / "benchmarks" / "fokker_planck.json"
AUTHORS = KEPT.with_name("fokker_planck_authors.json")
PICTURE = ROOT / "assets" / "pictures" / "fokker_planck.png"
SCHEDULE = OrnsteinUhlenbeck()
COUNT, REPEATS, PART = 2**15, 4, 2**13
"""Samples of a set, number of sets, and the batch size."""
MANY = 4_000_000
"""Points of the data."""
STEPS, FEWER_STEPS = 60, (30, 60, 120)
ODE, SDE = "dpmpp-2m", "sde-dpmpp-2m"
Seen = Callable[[Tensor, Tensor], object]
CELL = 2 * EDGE / 64
"""Of the cells, as in the paper; ours go on beyond its square."""
POINTS = regular_grid(4.5, 64)
PIXELS, SHOWN, INK = 160, 3.6, 0.11
"""Of a scatter plot: half its side, and the density that is plotted as black."""
TRAINED = f"of {STEPS_TRAINED} steps, seed 0"
THEIRS = {"mixture": "blob", "circles": "circles2", "checkerboard": "checker"}
"""The authors' names of the data."""
BINS = regular_grid(EDGE, 64).flip(1)
"""The points to which the authors moved their samples, in their order."""
DISTANCES = {"ode_data": "ODE to data", "sde_data": "SDE to data", "ode_sde": "ODE to SDE"}


class Run(NamedTuple):
    """A network of one data set and one weight."""

    data: str
    weight: float
    centred: bool = False

    @property
    def name(self) -> str:
        return run_folder(Path(), *self).name

    @property
    def kind(self) -> str:
        return f"{self.weight:g}{', centred' if self.centred else ''}"

    def trained(self, runs: Path) -> bool:
        """Whether its training came to the end."""
        checkpoint = run_folder(runs, *self) / CHECKPOINT
        return checkpoint.exists() and load_average(checkpoint, PotentialNetwork()) == STEPS_TRAINED

    def network(self, runs: Path) -> PotentialNetwork:
        network = PotentialNetwork()
        load_average(run_folder(runs, *self) / CHECKPOINT, network)
        return network.eval()


RUNS = [
    *(Run(data, weight) for data in DATA for weight in WEIGHTS),
    *(Run(data, 1.0, centred=True) for data in DATA),
]


# ----------------------------------------------------------------------------------- measuring


def samples(network: PotentialNetwork, sampler: str, steps: int, seed: int) -> Distribution:
    return binned(points(network, sampler, steps, seed).double(), CELL)


@torch.no_grad()
def points(
    network: PotentialNetwork, sampler: str, steps: int, seed: int, seen: Seen = lambda x, t: None
) -> Tensor:
    def model(x: Tensor, t: Tensor) -> Tensor:
        parts = zip(x.split(PART), t.split(PART), strict=True)
        return torch.cat([score(network, *part) for part in parts])

    tableau = build_tableau(sampler, make_grid(SCHEDULE, steps, "log-snr"))
    return draw(model, tableau, COUNT, seed, seen)


def measure(run: Run, runs: Path) -> dict[str, Any]:
    network = run.network(runs)
    sets = {
        kind: [samples(network, sampler, STEPS, seed) for seed in range(REPEATS)]
        for kind, sampler in (("ode", ODE), ("sde", SDE))
    }
    sets["data"] = [data_distribution(run.data)]
    chance = {kind: among(found) for kind, found in sets.items()}
    found: dict[str, Any] = {"chance": chance}
    for name in DISTANCES:
        one, other = name.split("_")
        pairs = zip(sets[one], cycle(sets[other]))
        values = [wasserstein(*pair) - (chance[one] + chance[other]) / 2 for pair in pairs]
        found[name] = mean_and_error(values)
    found["by_steps"] = {steps: gap(network, steps, chance) for steps in FEWER_STEPS}
    return found


def data_distribution(name: str) -> Distribution:
    return binned(DATA[name](MANY, seeded(2)).double(), CELL)


@cache
def spread(name: str) -> float:
    """The mean squared distance of two independent points of the data, 2 tr Cov."""
    data = data_distribution(name)
    return 2 * float(data.mean((data.points - data.centre).square().sum(dim=1)))


def among(sets: Sequence[Distribution]) -> float:
    """The mean distance of two sets of one distribution, due to their finite size."""
    pairs = list(combinations(sets, 2))
    return sum(wasserstein(*pair) for pair in pairs) / len(pairs) if pairs else 0.0


def gap(network: PotentialNetwork, steps: int, chance: dict[str, float]) -> float:
    """Of one set each."""
    ode, sde = (samples(network, sampler, steps, REPEATS) for sampler in (ODE, SDE))
    return wasserstein(ode, sde) - (chance["ode"] + chance["sde"]) / 2


def measure_bound(run: Run, runs: Path) -> GapBound:
    """At the times of the SDE's own steps, in float64."""
    network = run.network(runs)
    visited: list[tuple[Tensor, Tensor]] = []
    points(network, SDE, STEPS, 0, lambda x, t: visited.append((x[::4], t)))
    network.double()
    terms = [
        bound_terms(network, SCHEDULE, t.double(), empirical(x.double()), POINTS)
        for x, t in visited[::-1]
    ]
    noisiest = SCHEDULE.noisiest
    prior = (-POINTS.square().sum(dim=1) / (2 * noisiest.sigma**2)).softmax(dim=0)
    initial_kl = kl_divergence(Distribution(POINTS, prior), network, noisiest.t)
    return gap_bound(terms, initial_kl)


def measure_authors(run: Run, code: Path) -> dict[str, float]:
    """The distances of the authors' histograms, of 3,000,000 samples each, 800 steps."""
    name, weight = THEIRS[run.data], float(run.weight)
    files = {
        "ode": f"ode_64_3000000_100000_800_{name}_{weight}",
        "sde": f"sde_64_3000000_100000_800_{name}_{weight}",
        "data": f"truth_64_3000000_{name}",
    }
    sets = {kind: histogram(code, file) for kind, file in files.items()}
    return {pair: wasserstein(*(sets[kind] for kind in pair.split("_"))) for pair in DISTANCES}


def measure_range(code: Path) -> dict[str, float]:
    """How far the authors' histogram of the mixture is from the mixture, on two candidates."""
    theirs = histogram(code, f"truth_64_3000000_{THEIRS['mixture']}")
    data = DATA["mixture"](MANY, seeded(2)).double()
    found = {}
    for edge in (EDGE, 4.0):
        scaled = theirs._replace(points=theirs.points * edge / EDGE)
        found[f"{edge:g}"] = wasserstein(scaled, binned(data, 2 * edge / 63))
    return found


def histogram(code: Path, name: str) -> Distribution:
    weights = torch.from_numpy(np.load(code / "precomputed_dists" / f"weights_{name}.npy"))
    filled = weights > 0
    return Distribution(BINS[filled], weights[filled] / weights.sum())


# ------------------------------------------------------------------------------------ the report


Results = dict[Run, dict[str, Any]]


def distances(results: Results, authors: dict[str, dict[str, float]]) -> str:
    """Beside those of the authors' networks."""
    rows = []
    for run, found in results.items():
        theirs = authors.get(run.name, {})
        paper = [f"{theirs[name]:.4f}" if theirs else "…" for name in DISTANCES]
        ours = ["{:.4f} ± {:.4f}".format(*found[name]) for name in DISTANCES]
        row = [value for pair in zip(ours, paper, strict=True) for value in pair]
        rows.append([run.data, run.kind, *row])
    head = [heading for name in DISTANCES.values() for heading in (name, "paper")]
    return table(["data", "w_R", *head], rows)


def bounds(results: Results) -> str:
    rows = []
    for run, found in results.items():
        limit = found["bound"]
        error = "{:.2e} ± {:.0e}".format(*limit[:2])
        bound = GapBound(limit[0], limit[1], limit[2], spread(run.data))
        value = f"{bound.distance_squared:.3g}{', vacuous' if bound.vacuous else ''}"
        by_steps = [f"{found['by_steps'][str(steps)]:.4f}" for steps in FEWER_STEPS]
        rows.append([run.data, run.kind, *by_steps, error, value])
    steps = [f"W2², {count} steps" for count in FEWER_STEPS]
    return table(["data", "w_R", *steps, "deviation of the score", "bound of W2²"], rows)


def picture(runs: Path) -> Figure:
    """A row for each data set and sampler, a column for each weight."""
    rows = []
    for name, data in DATA.items():
        real = cell(data(COUNT, seeded(2)))
        for sampler, kind in ((ODE, "ODE"), (SDE, "SDE")):
            made = [points(Run(name, w).network(runs), sampler, STEPS, 0) for w in WEIGHTS]
            rows.append((f"{name}, {kind}", [real, *map(cell, made)]))
    heads = ["data", *(f"w_R = {weight:g}" for weight in WEIGHTS)]
    return picture_table("Potentials with a penalty on their residual", heads, rows)


def cell(points: Tensor) -> Cell:
    return Cell(density(points, SHOWN, INK, PIXELS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/fokker_planck"))
    parser.add_argument("--data", choices=DATA, nargs="*", default=list(DATA), help="to measure")
    parser.add_argument("--authors", type=Path, help="checkout of the authors' code, to measure")
    arguments = parser.parse_args()
    kept = Kept(KEPT, TRAINED)
    for run in tqdm(RUNS, "runs"):
        if run.data in arguments.data and run.trained(arguments.runs):
            kept.get(run.name, partial(measure, run, arguments.runs))
            kept.get(f"{run.name} bound", partial(measure_bound, run, arguments.runs))
    theirs = Kept(AUTHORS, "github.com/teojd/ODESDEGap")
    if arguments.authors:
        theirs.get("range", partial(measure_range, arguments.authors))
        for run in tqdm([run for run in RUNS if not run.centred], "the authors' histograms"):
            theirs.get(run.name, partial(measure_authors, run, arguments.authors))
    found, authors = kept.read(), theirs.read()
    results = {
        run: {**found[run.name], "bound": found[f"{run.name} bound"]}
        for run in RUNS
        if f"{run.name} bound" in found
    }
    if all(run.trained(arguments.runs) for run in RUNS):
        write_png(picture(arguments.runs), PICTURE, {"steps": STEPS})
    print(
        write(
            "fokker_planck",
            "Fokker-Planck penalty in the plane",
            "Squared Wasserstein distances W2 between samples of the probability-flow ODE "
            f"(`{ODE}`), of the reverse SDE (`{SDE}`), both in {STEPS} steps, and the data, for "
            "potentials trained with a penalty of weight w_R on their Fokker-Planck residual. "
            f"There are {REPEATS} sets of {COUNT:,} samples each, by array-RQMC to reduce their "
            f"variance, and {MANY:,} points of the data, all binned in cells of {CELL:.3f}; "
            "standard errors are over the sets. The distance that two finite sets of one "
            "distribution have, 0.001 to 0.002, is subtracted (Papp and Sherlock 2022). The "
            f"potentials were trained by `examples/fokker_planck/train.py` for {STEPS_TRAINED:,} "
            "steps from seed 0. The columns *paper* are from the networks of Deveney et al. 2023, "
            "trained for 100,000 steps on up to a hundred times as many points: exact distances of "
            f"the histograms that the authors published, on {len(BINS):,} points of ±{EDGE}, which "
            "leave out samples beyond. (Their histogram of the mixture itself is "
            f"{authors['range']['3.5']:.4f} from the mixture on ±3.5, and "
            f"{authors['range']['4']:.4f} on ±4, the range that their plotting script assumes.)",
            distances(results, authors),
            "## Distance between ODE and SDE by number of steps, and its bound by the residual",
            "W2² between ODE and SDE samples, one set of each; then, from "
            "`adjoint.fokker_planck.gap_bound`, the mean square deviation of the potential's "
            "gradient from the score of the SDE's marginals with an upper bound of its standard "
            "error, and the bound of W2² that follows. It is vacuous where it is not below the "
            "mean squared distance of two independent points of the data, "
            f"{', '.join(f'{spread(name):.3g} ({name})' for name in DATA)}.",
            bounds(results),
            "Written by `python -m benchmarks.fokker_planck`.",
        )
    )


if __name__ == "__main__":
    main()
