"""Predictors by correctors on the bundled digits, as in table 1 of Song et al. 2021.

    python -m benchmarks.predictor_corrector --data data/mnist [--device cuda] [--nfe 25,50]
        [--correctors none,annealed-langevin]

The Fréchet distance of 2,000 images to the 10,000 real test images in the features of the digit
classifier, at equal NFE, without guidance. A cell is measured once and stored in
``docs/benchmarks/predictor_corrector.json``; an interrupted run continues. The last table is the
bias of the corrector whose steps are scaled by the norms of the batch, on white noise.
"""

from __future__ import annotations

import argparse
import warnings
from functools import partial
from pathlib import Path

import diffusers
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.digits import IMAGES, ROOT, Bench, Ours
from benchmarks.report import table, write
from samplers.grid import Grid
from samplers.noise import RowNoise, initial_noise
from samplers.registry import get_sampler
from samplers.schedule import EDM
from samplers.solve import Solver

KEPT = ROOT / "docs" / "benchmarks" / "predictor_corrector.json"
NFE = (25, 50, 100, 250)
LONG = 1000
CORRECTORS = ("", "+annealed-langevin", "+langevin")
CORRECTOR_NAMES = [name.removeprefix("+") or "none" for name in CORRECTORS]
# The name in the table, the sampler without a corrector, and its options.
PREDICTORS = {
    "none (Langevin alone)": ("none", ()),
    "probability flow": ("ancestral", (("eta", 0.0),)),
    "ancestral": ("ancestral", ()),
    "reverse diffusion": ("reverse-diffusion", ()),
    "Euler-Maruyama": ("euler-maruyama", ()),
}
MARK = "†"
"""Behind what was not measured on the CPU."""
SNR = 0.16
SNRS = (0.05, 0.1, SNR, 0.3)
BATCHES = (1, 4, 16, 64, 256)
DIMENSION, CHAIN = 16, 800
STEPS_OF_BIAS, MANY = (0.1, SNR, 0.3), 64


def setting(predictor: str, corrector: str, snr: float = SNR) -> Ours | None:
    name, options = PREDICTORS[predictor]
    if name == "none" and not corrector:
        return None
    chosen = (("snr", snr),) if corrector and snr != SNR else ()
    return Ours(name + corrector, "trailing", options=(*options, *chosen))


def cell(bench: Bench, at: Ours | None, nfe: int) -> str:
    """A cell that was measured, or is; a dash where there is no such sampler."""
    if at is None:
        return "-"
    law = bench.law(at, nfe)
    return f"{law['frechet']:.2f}{MARK if 'device' in law else ''}"


def known(bench: Bench, at: Ours | None, nfe: int) -> str:
    kept = bench.kept.read()
    return "…" if at is not None and f"law {at} {nfe} 1.0" not in kept else cell(bench, at, nfe)


def distances(bench: Bench) -> str:
    rows = [
        [predictor, name]
        + [known(bench, setting(predictor, corrector), nfe) for nfe in (*NFE, LONG)]
        for predictor in PREDICTORS
        for name, corrector in zip(CORRECTOR_NAMES, CORRECTORS, strict=True)
        if setting(predictor, corrector)
    ]
    return table(["predictor", "corrector", *map(str, (*NFE, LONG))], rows)


def marked(bench: Bench) -> str:
    """Where the cells with a mark were measured."""
    laws = [law for name, law in bench.kept.read().items() if name.startswith("law ")]
    devices = sorted({law["device"] for law in laws if "device" in law})
    return f"{MARK} on {'; '.join(devices)}" if devices else "None was measured on a GPU"


def by_snr(bench: Bench) -> str:
    rows = [
        [f"{snr:g}", *(known(bench, setting("ancestral", c, snr), NFE[0]) for c in CORRECTORS[1:])]
        for snr in SNRS
    ]
    return table(["snr", "annealed-langevin", "langevin"], rows)


def measure(bench: Bench, counts: tuple[int, ...], correctors: tuple[str, ...]) -> None:
    cells = [(setting(p, c), nfe) for nfe in counts for c in correctors for p in PREDICTORS]
    if NFE[0] in counts:
        cells += [(setting("ancestral", c, snr), NFE[0]) for snr in SNRS for c in CORRECTORS[1:]]
    if LONG in counts:  # one cell is enough to see where the others go
        cells = [at for at in cells if at[1] != LONG]
        cells.append((setting("ancestral", "+annealed-langevin"), LONG))
    for at, nfe in tqdm(cells, "cells"):
        cell(bench, at, nfe)


# ------------------------------------------------------------------- the bias of batch norms


def stationary_variance(snr: float, batch: int) -> float:
    """The variance of the norm-scaled corrector on N(0, I_16), averaged over time and chains."""
    schedule = EDM()
    sigma = torch.tensor([1.0, 1.0 - 1e-12], dtype=torch.float64)
    grid = Grid(schedule, schedule.at_lam(-sigma.log()))
    options = {"corrector_steps": CHAIN, "snr": snr, "eta": 0.0}
    tableau = get_sampler("ancestral+langevin").tableau(grid, options)
    found: list[Tensor] = []
    for chain in range(max(1, MANY // batch)):
        seeds = tuple(range(chain * batch, (chain + 1) * batch))
        solver = Solver(tableau, "sample", RowNoise(seeds, (DIMENSION,)))
        start = solver.init(initial_noise(seeds, (DIMENSION,)))
        states = list(solver.run(lambda x, t: torch.zeros_like(x), start))
        found += [state.x.square().mean() for state in states[CHAIN // 2 :: 10]]
    return float(torch.stack(found).mean())


def biases(bench: Bench) -> str:
    rows = []
    for snr in tqdm(STEPS_OF_BIAS, "bias"):
        own = [
            bench.kept.get(f"variance {snr} {batch}", partial(stationary_variance, snr, batch))
            for batch in BATCHES
        ]
        rows.append([f"{snr:g}", f"{1 / (1 - snr**2):.3f}", *(f"{v:.3f}" for v in own)])
    head = ["snr", "annealed-langevin (exact)", *(f"langevin, batch of {b}" for b in BATCHES)]
    return table(head, rows)


def report(bench: Bench) -> Path:
    return write(
        "predictor_corrector",
        "Predictors and correctors on `assets/digits`",
        f"Fréchet distance of {IMAGES} images by NFE (the columns); classes in turn, no guidance, "
        f"weights `{bench.digest[:12]}…`, trailing grid, one corrector step of snr {SNR} after "
        "each predictor step. Predictor and corrector evaluate the network once each. "
        f"{bench.floor()}. A cell with … was not measured. {marked(bench)}.",
        distances(bench),
        f"## Step size of the corrector, ancestral predictor, {NFE[0]} NFE",
        by_snr(bench),
        f"## Bias of the corrector: stationary variance on N(0, I_{DIMENSION})",
        "The exact variance is 1. Annealed Langevin, whose step size depends on the schedule "
        "alone, has 1 / (1 - snr²) for every batch size; Langevin with steps scaled by the norms "
        "of the batch has a bias that depends on the batch size. Time averages over the second "
        f"halves of chains of {CHAIN} steps, 64 or more chains in all.",
        biases(bench),
        "Written by `python -m benchmarks.predictor_corrector`.",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/mnist"))
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--nfe", default="", help="NFE to measure now, of 25,50,100,250,1000")
    parser.add_argument(
        "--correctors",
        default=",".join(CORRECTOR_NAMES),
        help=f"those to measure now, of {', '.join(CORRECTOR_NAMES)}",
    )
    arguments = parser.parse_args()
    counts = tuple(int(count) for count in arguments.nfe.split(",") if count)
    correctors = tuple(
        CORRECTORS[CORRECTOR_NAMES.index(name)] for name in arguments.correctors.split(",")
    )
    warnings.filterwarnings("ignore")
    diffusers.utils.logging.set_verbosity_error()
    with torch.no_grad():
        bench = Bench(arguments.data, KEPT, arguments.device)
        measure(bench, counts, correctors)
        print(report(bench).read_text())


if __name__ == "__main__":
    main()
