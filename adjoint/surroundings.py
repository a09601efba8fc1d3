"""What a network call depends on beside its arguments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor


class Surroundings(NamedTuple):
    """What a call depends on beside its arguments: autocast, and the state of random numbers."""

    device: torch.device
    autocast: tuple[tuple[str, bool, torch.dtype], ...]
    cpu: Tensor
    cuda: Tensor | None

    @classmethod
    def now(cls, sample: Tensor) -> Surroundings:
        device = sample.device
        kinds = sorted({"cpu", device.type})
        cast = tuple(
            (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
            for kind in kinds
        )
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(device, cast, torch.get_rng_state(), cuda)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Within, all is as it was; after it, as before."""
        with torch.random.fork_rng([] if self.cuda is None else [self.device]):
            torch.set_rng_state(self.cpu)
            if self.cuda is not None:
                torch.cuda.set_rng_state(self.cuda, self.device)
            contexts = [torch.autocast(kind, dtype, on) for kind, on, dtype in self.autocast]
            with contexts[0], contexts[-1]:
                yield
