"""Images, and the labels of images that are sampled in turn, for measurements."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from samplers.checkpoint import NetworkCheckpoint
from samplers.cli.common import checkpoints
from samplers.cli.common.options import ConditionOptions
from samplers.images.inputs import read_inputs


def labels_in_turn(
    conditions: ConditionOptions, checkpoint: NetworkCheckpoint, count: int
) -> tuple[int, ...] | None:
    """The class of each of ``count`` images, in turn; None for a model without classes."""
    turn = checkpoints.labels_in_turn(conditions, checkpoint, count)
    return None if turn is None else tuple(turn[i % len(turn)] for i in range(count))


def read_levels(paths: Sequence[Path], shape: tuple[int, int, int]) -> list[Tensor]:
    """The levels of images [1, C, H, W] that have the network's shape."""
    return [image.levels for image in read_inputs(list(paths), shape)]
