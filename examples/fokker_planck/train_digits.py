"""Continue training the bundled digits network, with or without a penalty.

    accelerate launch examples/fokker_planck/train_digits.py --data data/mnist --penalty residual

Run it again to resume it. The result is a diffusers pipeline in the folder of the run.
``--penalty none`` is the same training without one, for comparison.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import PartialState
from diffusers import DDPMPipeline
from torch import Generator, Tensor, nn

from adjoint import score_penalty, solver_cost_penalty
from samplers.training import LabelDropout, Objective, TrainingConfig, denoising_loss, train

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "digits")]
from mnist import digits  # noqa: E402  another example's

from examples.unets import as_denoiser, export  # noqa: E402

CHECKPOINT = ROOT / "assets" / "digits"
NO_CLASS = 10
STEPS, BATCH = 400, 32
SHARE = 8
"""Images of a batch at which the penalty is evaluated; each costs several evaluations."""
WEIGHTS = {"none": 0.0, "residual": 1.0, "solver-cost": 2000.0}
"""Default weight of each penalty."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/mnist"))
    parser.add_argument("--penalty", choices=WEIGHTS, default="residual")
    parser.add_argument("--weight", type=float, help=f"of the penalty {WEIGHTS}")
    parser.add_argument("--output", type=Path, default=Path("runs/regularised"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    weight = WEIGHTS[arguments.penalty] if arguments.weight is None else arguments.weight
    folder = run_folder(arguments.output, arguments.penalty, weight)
    try:
        pipeline = DDPMPipeline.from_pretrained(CHECKPOINT)
        pipeline.unet = fit(pipeline, arguments.data, arguments.penalty, weight, folder,
                            arguments.seed)  # fmt: skip
        if PartialState().is_main_process:
            export(pipeline, folder / "pipeline", {"_null_label": NO_CLASS})
    except (ArithmeticError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def run_folder(output: Path, penalty: str, weight: float) -> Path:
    return output / f"{penalty}-{weight:g}"


def fit(
    pipeline: DDPMPipeline, data: Path, penalty: str, weight: float, folder: Path, seed: int
) -> nn.Module:
    """The averaged network after the training."""
    config = TrainingConfig(
        steps=STEPS,
        batch_size=BATCH,
        learning_rate=1e-4,
        warmup=20,
        average_decay=0.98,
        precision="no",
        seed=seed,
        log_every=10,
        checkpoint_every=50,
    )
    model, names = as_denoiser(pipeline.unet, pipeline.scheduler), ("class_labels",)
    built: dict[str, Callable[[], Objective | None]] = {
        "none": lambda: None,
        "residual": lambda: score_penalty(model, weight, conditions=names),
        "solver-cost": lambda: solver_cost_penalty(model, weight, conditions=names),
    }
    extra = built[penalty]()
    return train(
        pipeline.unet,
        digits(data, "train"),
        denoising_loss(model, names, LabelDropout(0.1, NO_CLASS)),
        config,
        folder,
        penalty=None if extra is None else of_some(extra),
    )


def of_some(penalty: Objective) -> Objective:
    """The same, at the first images of the batch."""

    def objective(model: nn.Module, batch: Any, generator: Generator) -> Tensor:
        return penalty(model, tuple(values[:SHARE] for values in batch), generator)

    return objective


if __name__ == "__main__":
    main()
