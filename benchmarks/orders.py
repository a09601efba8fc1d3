"""The observed orders of every sampler in the registry, beside what it claims.

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
three Gaussians in one dimension with exact score, from sigma/alpha = 4 to 1/4 on a grid even in the
log-SNR; the exact solution is SciPy's DOP853 at a relative tolerance of 1e-12. The error is the
root mean square over nine trajectories. Written by `python -m benchmarks.orders`;
`tests/test_order.py` asserts that every slope of the columns VP, VE and flow lies within 0.2 of
the claim, for predictions of eps, x_0 and v.

- **VP, VE, flow**: the order of the method, from exact starting values and without lowering the
  order of the last steps.
- **with ramp**: a run as it is used, from one point: the first steps of a multistep method have
  lower order. One step of order p errs by order p + 1, so however high the order of the method, the
  slope falls to 2 (to 3 for UniPC, whose first step is of second order), slowly where that one
  error is small.
- **ramp, lowered end**: the last steps are lowered as well (`lower_order_final`)."""

SECOND = """The skeleton is the method without its noise; it solves `dy/drho = 2 eps` (for EDM's
churn the probability-flow ODE itself). The weak order is that of the law from a given start on
correlated Gaussian data in the plane, propagated exactly through the tableau. For EDM's churn and
for predictor-corrector samplers it is that of the marginal: churn with `s_churn` = 4 (above its
cap, `s_churn` > 0.41 n, it has no limit), correctors with an `snr` whose square shrinks with the
step. A weak order of 0 says that a bias remains: of steps that follow the norms of the batch, or of
a corrector that has no predictor to follow. The skeleton of a predictor-corrector sampler is its
predictor. The strong order is measured on a mixture along one Brownian path in the method's own
clock; a dash says that the noise belongs to no path."""


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
    samplers = registry().values()
    own = [deterministic(s) for s in tqdm([s for s in samplers if not s.stochastic])]
    noisy = [stochastic(s) for s in tqdm([s for s in samplers if s.stochastic])]
    first = ("sampler", "claim", "VP", "VE", "flow", "with ramp", "ramp, lowered end")
    second = ("sampler", "order", "skeleton", "weak order", "law", "strong order", "path")
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
