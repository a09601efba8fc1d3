"""Train a potential in the plane with the residual of its Fokker-Planck equation as a penalty.

    accelerate launch examples/fokker_planck/train.py --data mixture --weight 0.1

Run it again to resume it.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import torch
from torch import Generator, Tensor
from torch.utils.data import TensorDataset

from adjoint import potential_penalty
from samplers import Denoiser, Point, Schedule
from samplers.training import TrainingConfig, denoising_loss, seeded, train

sys.path.insert(0, str(Path(__file__).parents[2]))
from examples.fokker_planck.plane import (
    DATA,
    EDGE,
    STEPS_TRAINED,
    OrnsteinUhlenbeck,
    PotentialNetwork,
    run_folder,
    score,
)

SCHEDULE = OrnsteinUhlenbeck()
POINTS = 200_000
"""Number of data points, from which batches are sampled."""
TIMES, POINTS_EACH = 20, 50
"""Times of one step, and points at each time, at which the residual is evaluated."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=DATA, default="mixture")
    parser.add_argument("--weight", type=float, default=0.1, help="w_R [0.1]")
    parser.add_argument(
        "--centred", action="store_true", help="subtract the mean of the residual at each time"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/fokker_planck"))
    parser.add_argument("--steps", type=int, default=STEPS_TRAINED)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        fit(arguments)
    except (ArithmeticError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def fit(arguments: argparse.Namespace) -> None:
    config = TrainingConfig(
        steps=arguments.steps,
        batch_size=2000,
        learning_rate=3e-3,
        gradient_clip=math.inf,
        seed=arguments.seed,
        log_every=100,
        checkpoint_every=1000,
    )
    penalty = potential_penalty(
        lambda model, x, t: model(x, t),
        SCHEDULE,
        residual_points,
        arguments.weight,
        centred=arguments.centred,
        time_weight=weight_of_residuals,
    )
    torch.manual_seed(config.seed)
    folder = run_folder(arguments.output, arguments.data, arguments.weight, arguments.centred)
    network = PotentialNetwork()
    model = Denoiser(network, SCHEDULE, "score", call=score)
    train(
        network,
        TensorDataset(DATA[arguments.data](POINTS, seeded(config.seed))),
        denoising_loss(model, weighting=weight_of_scores),
        config,
        folder,
        penalty=penalty if arguments.weight > 0 else None,
    )


# The objective is that of the paper but for times below 0.001, with times from 10 Beta(1, 2) for
# the scores and uniform ones for the residual; both are sampled with a uniform logarithm and
# weighted, which has less variance.


def weight_of_scores(schedule: Schedule, at: Point) -> Tensor:
    end = SCHEDULE.t_max
    return 2 * (1 - at.t / end) / end / SCHEDULE.density(at.t)


def weight_of_residuals(at: Point) -> Tensor:
    return 1 / SCHEDULE.t_max / SCHEDULE.density(at.t)


def residual_points(generator: Generator) -> tuple[Tensor, Tensor]:
    """Points uniform in the square, at random times."""
    t = SCHEDULE.at_fraction(torch.rand(TIMES, generator=generator))
    x = EDGE * (2 * torch.rand(TIMES, POINTS_EACH, 2, generator=generator) - 1)
    return x, t


if __name__ == "__main__":
    main()
