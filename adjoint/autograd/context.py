"""What the result of a network evaluation depends on beside its arguments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor


class ExecutionContext(NamedTuple):
    """Autocast settings and random number generator states at the time of an evaluation.

    Attributes:
        device: of the sample.
        autocast: (device type, enabled, dtype) of the CPU and of the device.
        cpu_rng, cuda_rng: generator states; the second is None on a CPU.
    """

    device: torch.device
    autocast: tuple[tuple[str, bool, torch.dtype], ...]
    cpu_rng: Tensor
    cuda_rng: Tensor | None

    @classmethod
    def capture(cls, sample: Tensor) -> ExecutionContext:
        """The context as it is now."""
        device = sample.device
        kinds = sorted({"cpu", device.type})
        autocast = tuple(
            (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
            for kind in kinds
        )
        cuda_rng = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(device, autocast, torch.get_rng_state(), cuda_rng)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Restore the context within the block; afterwards it is as before."""
        with torch.random.fork_rng([] if self.cuda_rng is None else [self.device]):
            torch.set_rng_state(self.cpu_rng)
            if self.cuda_rng is not None:
                torch.cuda.set_rng_state(self.cuda_rng, self.device)
            contexts = [torch.autocast(kind, dtype, on) for kind, on, dtype in self.autocast]
            with contexts[0], contexts[-1]:
                yield
