"""Train the score of one SDE in the plane by denoising score matching.

    accelerate launch examples/score_sde/train_plane.py --schedule vp --weighting sigma-squared

Run it again to go on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

from samplers import Denoiser
from samplers.training import TrainingConfig, denoising_loss, seeded, train

sys.path.insert(0, str(Path(__file__).parents[2]))
from examples.score_sde.plane import (
    SCHEDULES,
    WEIGHTINGS,
    ScoreNetwork,
    add_output,
    checkerboard,
    run_folder,
)

POINTS = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a score network in the plane.")
    parser.add_argument("--schedule", choices=SCHEDULES, default="vp")
    parser.add_argument("--weighting", choices=WEIGHTINGS, default="sigma-squared")
    add_output(parser)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    config = TrainingConfig(
        steps=arguments.steps,
        batch_size=512,
        learning_rate=2e-3,
        warmup=arguments.steps // 20,
        seed=arguments.seed,
        log_every=100,
        checkpoint_every=1000,
    )
    schedule = SCHEDULES[arguments.schedule]
    points = TensorDataset(checkerboard(POINTS, seeded(config.seed)))
    torch.manual_seed(config.seed)
    network = ScoreNetwork(schedule)
    model = Denoiser(network, schedule, "score")
    objective = denoising_loss(model, weighting=arguments.weighting)
    folder = run_folder(arguments.output, arguments.schedule, arguments.weighting)
    try:
        train(network, points, objective, config, folder)
    except (ArithmeticError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
