"""The gap between ODE and SDE samples of regularised potentials, and a bound of it by the residual.

    python -m benchmarks.fokker_planck [--runs runs/fokker_planck]

Measures the networks that ``examples/fokker_planck/train.py`` trained, as in section 5 of Deveney
et al. 2023: squared Wasserstein distances between 100,000 samples of the probability-flow ODE, as
many of the reverse SDE, and as many of the data. A run is measured once and kept in
``docs/benchmarks/fokker_planck.json``, so that a measurement that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from adjoint.fokker_planck import (
    Bound,
    Law,
    binned_wasserstein,
    bound,
    centred,
    divergence,
    grid,
    instant,
    of_samples,
)
from benchmarks.digits import ROOT, Kept
from benchmarks.report import mean_and_error, table, write
from samplers.grid import make_grid
from samplers.pictures import Cell, write_png
from samplers.pictures import table as picture_table
from samplers.sample import build_tableau
from samplers.solve import Solver
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
PICTURE = ROOT / "assets" / "pictures" / "fokker_planck.png"
SCHEDULE = OrnsteinUhlenbeck()
COUNT, PART, BOUNDED = 100_000, 12_500, 4_000
"""Samples, those that are drawn and compared at once, and those of the bound."""
STEPS, FEWER_STEPS = 60, (30, 60, 120)
ODE, SDE = DRAWN = ("dpmpp-2m", "sde-dpmpp-2m")
CELL = 2 * EDGE / 64
"""Of the cells, as in the paper; ours go on beyond its square."""
PLACES = grid(4.5, 48)
PIXELS, SHOWN, INK = 160, 3.6, 0.11
"""Of a picture of points, half its side, and the density that is drawn as ink."""
TRAINED = f"of {STEPS_TRAINED} steps, seed 0"
# Squared distances of the paper's own networks, computed anew from the histograms that its authors
# published: ODE to data, SDE to data, ODE to SDE, for each weight.
PAPER = {
    "mixture": ((0.0133, 0.0069, 0.0060, 0.0217), (0.0018, 0.0027, 0.0047, 0.0202),
                (0.0142, 0.0033, 0.0029, 0.0020)),
    "circles": ((0.0182, 0.0086, 0.0101, 0.0116), (0.0022, 0.0034, 0.0052, 0.0112),
                (0.0167, 0.0057, 0.0032, 0.0013)),
    "checkerboard": ((0.0308, 0.0140, 0.0141, 0.0425), (0.0034, 0.0059, 0.0142, 0.0414),
                     (0.0345, 0.0086, 0.0035, 0.0016)),
}  # fmt: skip
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


# ------------------------------------------------------------------------------------- drawing


Seen = Callable[[Tensor, Tensor], object]


def draw(
    network: PotentialNetwork, sampler: str, steps: int, part: int, seen: Seen = lambda x, t: None
) -> Tensor:
    """Samples [PART, 2]; ``seen`` gets the points and the times at which the network is asked."""
    tableau = build_tableau(sampler, make_grid(SCHEDULE, steps))
    sigma = float(SCHEDULE.noisiest.sigma)
    way = DRAWN.index(sampler)

    def model(x: Tensor, t: Tensor) -> Tensor:
        seen(x, t[0])
        return score(network, x, t)

    def noise(row: int) -> Tensor:
        return torch.randn(PART, 2, generator=seeded(1, part, way, row + 1), dtype=torch.float64)

    solver = Solver(tableau, "score", noise)
    start = sigma * torch.randn(PART, 2, generator=seeded(1, part, way))
    with torch.no_grad():
        *_, last = solver.run(model, solver.init(start))
    return last.x


# ----------------------------------------------------------------------------------- measuring


def measure(run: Run, runs: Path) -> dict[str, Any]:
    network = run.network(runs)
    parts: dict[str, list[float]] = {name: [] for name in DISTANCES}
    for part in tqdm(range(COUNT // PART), run.name, leave=False):
        sets = {
            "ode": draw(network, ODE, STEPS, part),
            "sde": draw(network, SDE, STEPS, part),
            "data": DATA[run.data](PART, seeded(2, part)),
        }
        for name, found in parts.items():
            one, other = name.split("_")
            found.append(centred(sets[one], sets[other], on_cells))
    return {
        **{name: mean_and_error(found) for name, found in parts.items()},
        "by_steps": {steps: gap(network, steps) for steps in FEWER_STEPS},
        "bound": measure_bound(network)._asdict(),
    }


on_cells = partial(binned_wasserstein, width=CELL)


def gap(network: PotentialNetwork, steps: int) -> tuple[float, float]:
    """Of fewer samples, from the same noise for each number of steps."""
    return mean_and_error(
        [
            centred(draw(network, ODE, steps, part), draw(network, SDE, steps, part), on_cells)
            for part in range(2)
        ]
    )


def measure_bound(network: PotentialNetwork) -> Bound:
    """At the times of the SDE's own steps, in float64."""
    visited: list[tuple[Tensor, Tensor]] = []
    draw(network, SDE, STEPS, 0, lambda x, t: visited.append((x.double(), t.double())))
    network.double()
    instants = [
        instant(network, SCHEDULE, t, of_samples(x[:BOUNDED]), PLACES) for x, t in visited[::-1]
    ]
    noisiest = SCHEDULE.noisiest
    prior = (-PLACES.square().sum(dim=1) / (2 * noisiest.sigma**2)).softmax(dim=0)
    return bound(instants, divergence(Law(PLACES, prior), network, noisiest.t))


# ------------------------------------------------------------------------------------ the report


Results = dict[Run, dict[str, Any]]


def distances(results: Results) -> str:
    """Beside those of the paper."""
    rows = []
    for run, found in results.items():
        paper = ["…"] * len(DISTANCES)
        if not run.centred:
            at = WEIGHTS.index(run.weight)
            paper = [f"{values[at]:.4f}" for values in PAPER[run.data]]
        ours = ["{:.4f} ± {:.4f}".format(*found[name]) for name in DISTANCES]
        row = [value for pair in zip(ours, paper, strict=True) for value in pair]
        rows.append([run.data, run.kind, *row])
    head = [heading for name in DISTANCES.values() for heading in (name, "paper")]
    return table(["data", "w_R", *head], rows)


def bounds(results: Results) -> str:
    rows = []
    for run, found in results.items():
        limit = found["bound"]
        by_steps = ["{:.4f} ± {:.4f}".format(*found["by_steps"][str(s)]) for s in FEWER_STEPS]
        limits = [f"{limit[name]:.3g}" for name in ("score_error", "distance_squared")]
        rows.append([run.data, run.kind, *by_steps, *limits])
    steps = [f"gap, {count} steps" for count in FEWER_STEPS]
    return table(["data", "w_R", *steps, "score error at most", "gap at most"], rows)


def picture(runs: Path) -> Image.Image:
    """A row for each data set and sampler, a column for each weight."""
    rows = []
    for name, data in DATA.items():
        real = cell(data(PART * 4, seeded(2, 0)))
        for sampler, kind in ((ODE, "ODE"), (SDE, "SDE")):
            made = [
                torch.cat([draw(Run(name, w).network(runs), sampler, STEPS, i) for i in range(4)])
                for w in WEIGHTS
            ]
            rows.append((f"{name}, {kind}", [real, *map(cell, made)]))
    heads = ["data", *(f"w_R = {weight:g}" for weight in WEIGHTS)]
    return picture_table("Potentials with a penalty on their residual", heads, rows)


def cell(points: Tensor) -> Cell:
    return Cell((density(points, SHOWN, INK, PIXELS),), ())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/fokker_planck"))
    arguments = parser.parse_args()
    kept = Kept(KEPT, TRAINED)
    for run in tqdm(RUNS, "runs"):
        if run.name in kept.read() or run.trained(arguments.runs):
            kept.get(run.name, partial(measure, run, arguments.runs))
    results = {run: kept.read()[run.name] for run in RUNS if run.name in kept.read()}
    if all(run.trained(arguments.runs) for run in RUNS):
        write_png(picture(arguments.runs), PICTURE, {"steps": STEPS})
    print(
        write(
            "fokker_planck",
            "The residual as a penalty, in the plane",
            f"Squared Wasserstein distances W2 of {COUNT:,} samples, in {COUNT // PART} parts from "
            "the scatter of which the standard errors are, and less what chance makes of them "
            f"(Papp and Sherlock 2022); points on cells of {CELL:.3f}. The potentials were trained "
            f"by `examples/fokker_planck/train.py`, in {STEPS_TRAINED:,} steps from seed 0; the "
            f"samples are of `{ODE}` and `{SDE}` in {STEPS} steps. The networks of the paper were "
            "trained in 100,000 steps on up to a hundred times as many points; its distances were "
            "computed anew from the histograms that its authors published.",
            distances(results),
            "## The gap by steps, and its bound by the residual",
            f"Gaps of {2 * PART:,} samples; then the bounds of `adjoint.fokker_planck.bound`.",
            bounds(results),
            "Written by `python -m benchmarks.fokker_planck`.",
        )
    )


if __name__ == "__main__":
    main()
