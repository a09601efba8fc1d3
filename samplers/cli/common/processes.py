"""The processes that ``accelerate launch`` started, or a single one."""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

_PATIENCE = timedelta(days=7)  # of one process that waits for another to finish its share


@dataclass(frozen=True)
class Processes:
    """Which process this is, of how many, and the device it computes on."""

    index: int
    count: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this is the main process."""
        return self.index == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of the items, which are the same in every process."""
        return items[self.index :: self.count]

    def gathered(self, items: list[T]) -> list[T]:
        """The items of all processes; every process waits for the others here."""
        if self.count == 1:
            return items
        from accelerate.utils import gather_object

        everything: list[T] = gather_object(items)
        return everything


def join(device: str) -> Processes:
    """Find the other processes, if there are any, and this one's device.

    Raises ValueError for a device that this machine does not have.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes(0, 1, find_device(device))
    # accelerate takes a second to import, and one process needs nothing of it.
    from accelerate import PartialState

    state = PartialState(cpu=find_device(device).type == "cpu", timeout=_PATIENCE)
    atexit.register(state.destroy_process_group)
    return Processes(state.process_index, state.num_processes, state.device)


def find_device(name: str) -> torch.device:
    """The device of a name such as cuda:0 or auto; ValueError if this machine has none such."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device, present = torch.device(name), torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= present:
        raise ValueError(f"The device is {name!r}, but this machine has {present} CUDA devices.")
    return device
