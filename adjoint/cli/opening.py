"""From options to a loaded network, its labels and images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from samplers.checkpoint import NetworkCheckpoint
from samplers.cli import choices, failure, images, opening
from samplers.cli.common.errors import Failure
from samplers.cli.common.options import ConditionOptions, ModelOptions
from samplers.cli.common.processes import join


def open_network(model: ModelOptions) -> NetworkCheckpoint:
    """Load a checkpoint; ValueError if it is conditioned on a prompt."""
    try:
        return opening.open_network(model, join(model.device).device)  # type: ignore[arg-type]
    except failure.Failure as error:
        raise Failure(str(error), error.code) from error


def labels_in_turn(
    conditions: ConditionOptions, checkpoint: NetworkCheckpoint, count: int
) -> tuple[int, ...] | None:
    """The class of each of ``count`` images, in turn; None for a model without classes."""
    turn = choices.chosen_labels(conditions.label, checkpoint.classes, checkpoint.null_label)
    return None if turn is None else tuple(turn[i % len(turn)] for i in range(count))


def labels_or_none(
    conditions: ConditionOptions, checkpoint: NetworkCheckpoint, count: int
) -> tuple[int, ...] | None:
    """The same, but no class if none is named and the model has a label for that."""
    return choices.classes_or_none(
        conditions.label, checkpoint.classes, checkpoint.null_label, count
    )


def read_levels(paths: Sequence[Path], shape: tuple[int, int, int]) -> list[Tensor]:
    """The levels of images [1, C, H, W] that have the network's shape."""
    try:
        return [picture.levels for picture in images.read_pictures(list(paths), shape)]
    except failure.Failure as error:
        raise Failure(str(error), error.code) from error
