"""What the commands share that train."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from samplers.cli.failure import Failure
from samplers.cli.values import positive, positive_number, whole

if TYPE_CHECKING:
    from samplers.training import TrainingConfig


def add_training_arguments(group: argparse._ArgumentGroup, batch: int, of: str) -> None:
    """How long, with what in a batch, and how fast."""
    group.add_argument("--steps", type=positive, default=4000, metavar="N", help="[4000]")
    group.add_argument(
        "--batch-size", type=positive, default=batch, metavar="N", help=f"{of} [{batch}]"
    )
    group.add_argument(
        "--learning-rate", type=positive_number, default=1e-3, metavar="R", help="[0.001]"
    )
    group.add_argument("--seed", type=whole, default=0, metavar="N", help="[0]")


def training_config(arguments: argparse.Namespace) -> TrainingConfig:
    """The settings that were asked for."""
    # accelerate takes seconds to import, and --help needs nothing of it.
    from samplers.training import TrainingConfig

    return TrainingConfig(
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        warmup=min(100, arguments.steps // 10),
        average_decay=0.999,
        seed=arguments.seed,
        log_every=10,
        checkpoint_every=100,
    )


@contextmanager
def named_endings(output: Path, remedy: str) -> Iterator[None]:
    """Around a training: how it may end but well leaves as a Failure.

    Args:
        remedy: what to do if the device's memory is too small.
    """
    import torch

    from samplers.training import CHECKPOINT

    try:
        yield
    except KeyboardInterrupt:
        kept = (output / CHECKPOINT).exists()
        where = "keeps the last checkpoint" if kept else "has no checkpoint yet"
        raise Failure(
            f"Interrupted. {output} {where}; the same command goes on from what is there.", 130
        ) from None
    except ArithmeticError as error:
        raise Failure(str(error)) from error
    except torch.OutOfMemoryError as error:
        raise Failure(f"The device ran out of memory; {remedy}.") from error
