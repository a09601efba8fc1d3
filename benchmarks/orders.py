"""The observed orders of every sampler in the registry, beside the claimed ones.

    python -m benchmarks.orders

Written to ``docs/orders.md``. The measurements are those of ``tests/test_order.py`` and
``tests/test_stochastic.py``, on finer grids.
"""

from __future__ import annotations

import math
from pathlib import Path

from tqdm import tqdm

from benchmarks.report import table
from samplers.registry import Sampler, registry
from tests.convergence import error, global_error, slopes, uncorrected
from tests.test_order import SCHEDULES
from tests.test_stochastic import law_error, strong_slope
from tests.test_stochastic import table as law_table

PAGE = Path(__file__).parent.parent / "docs" / "orders.md"
STEPS = (64, 128)

FIRST = f"""Slopes of the error between {STEPS[0]} and {STEPS[1]} steps, in float64, on a mixture of
three Gaussians in one dimension with exact score, from sigma/alpha = 4 to 1/4 on a grid uniform in
the log-SNR; the exact solution is SciPy's DOP853 at a relative tolerance of 1e-12. The error is the
root mean square over nine trajectories. Written by `python -m benchmarks.orders`;
`tests/test_order.py` asserts that every slope of the columns VP, VE and flow lies within 0.2 of
the claim, for predictions of eps, x_0 and v.

- **VP, VE, flow**: the order of the method on this schedule, from exact starting values and without
  lowering the order of the last steps.
- **self-starting**: a run as it is used. It starts from one point, so the first steps of a
  multistep method have lower order. The local error of one first-order step is of second order, so
  the slope falls to 2, whatever the order of the method (to 3 for UniPC, whose first step is of
  second order), slowly where that one error is small.
- **self-starting, lowered end**: the order of the last steps is lowered as well
  (`lower_order_final`)."""

SECOND = """Three orders, each as claimed and as measured.

- **without noise**: the deterministic part of the method, which solves `dy/drho = 2 eps` (for EDM's
  churn the probability-flow ODE itself; for a predictor-corrector sampler its predictor).
- **weak**: the convergence of the distribution, from a given start on correlated Gaussian data in
  the plane, propagated exactly through the tableau. For EDM's churn and for predictor-corrector
  samplers it is that of the marginal: churn with `s_churn` = 4 (above its cap, `s_churn` > 0.41 n,
  it does not converge), correctors with an `snr` whose square shrinks with the step. An order of 0
  says that a bias remains: steps scaled by the norms of the batch, or a corrector without a
  predictor.
- **strong**: the convergence along one Brownian path in the method's time variable, on a mixture; a
  dash says that the noise is not a function of a path."""


def deterministic(sampler: Sampler) -> list[str]:
    own = [
        slopes([error(sampler, schedule, "sample", n) for n in STEPS])[0]
        for schedule in SCHEDULES.values()
    ]
    ends = [
        slopes([global_error(sampler, SCHEDULES["ve"], n, lowered=lowered) for n in STEPS])[0]
        for lowered in (False, True)
    ]
    return [sampler.name, str(sampler.order), *(f"{slope:.2f}" for slope in (*own, *ends))]


def stochastic(sampler: Sampler) -> list[str]:
    pairs = (
        (sampler.order, skeleton_slope(sampler) if sampler.order else None),
        (sampler.weak_order, law_slope(sampler) if sampler.weak_order else None),
        (sampler.strong_order, strong_slope(sampler, 1) if sampler.strong_order else None),
    )
    return [
        sampler.name,
        *(
            "-" if value is None else form.format(value)
            for pair in pairs
            for form, value in zip(("{:g}", "{:.2f}"), pair, strict=True)
        ),
    ]


def skeleton_slope(sampler: Sampler) -> float:
    drift = "eta" in sampler.options
    options, rate = (uncorrected(sampler), 2.0) if drift else ({"s_churn": 0.0}, 1.0)
    errors = [error(sampler, SCHEDULES["ve"], "sample", n, options, rate) for n in STEPS]
    return slopes(errors)[0]


def law_slope(sampler: Sampler) -> float:
    coarse, fine = (law_error(law_table(sampler, SCHEDULES["ve"], n)) for n in STEPS)
    return math.log2(coarse / fine)


def main() -> None:
    samplers = [own for own in registry().values() if not own.distilled]
    own = [deterministic(s) for s in tqdm([s for s in samplers if not s.stochastic])]
    noisy = [stochastic(s) for s in tqdm([s for s in samplers if s.stochastic])]
    first = (
        *("sampler", "claimed order", "VP", "VE", "flow"),
        *("self-starting", "self-starting, lowered end"),
    )
    second = (
        *("sampler", "order without noise", "measured", "weak order", "measured"),
        *("strong order", "measured"),
    )
    parts = (
        "# Observed orders",
        "## Deterministic samplers",
        FIRST,
        table(first, own),
        "## Stochastic samplers",
        SECOND,
        table(second, noisy),
    )
    PAGE.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
