"""What the result of a network evaluation depends on beside its arguments, and its fingerprint."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

_COUNT = 256
"""Numbers of a sample or an output that are saved to recognise it."""
_SLOPE = 10.0
"""How many times the relative deviation of its sample an output may deviate."""


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
            with contexts[0], contexts[-1], uncached_casts():
                yield

    def random_since(self) -> bool:
        """Whether random numbers were generated since the context was captured."""
        if not torch.equal(self.cpu_rng, torch.get_rng_state()):
            return True
        before = self.cuda_rng
        return before is not None and not torch.equal(before, torch.cuda.get_rng_state(self.device))


@contextmanager
def uncached_casts() -> Iterator[None]:
    """Let autocast cast the weights anew in each evaluation within the block.

    A cached cast keeps the graph, or the lack of one, of the evaluation that made it.
    """
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


class PastEvaluation(NamedTuple):
    """The context of an evaluation that was made, and some numbers of its sample and output.

    Attributes:
        tolerance: the relative deviation at which an output is another one: the square root of the
            unit of the least precise dtype.
    """

    context: ExecutionContext
    sample: Tensor
    numbers: Tensor
    tolerance: float

    @classmethod
    def of(
        cls, context: ExecutionContext, sample: Tensor, outputs: Sequence[Tensor]
    ) -> PastEvaluation:
        floating = [t.dtype for t in (sample, *outputs) if t.is_floating_point()]
        casts = [dtype for _, enabled, dtype in context.autocast if enabled]
        unit = max(torch.finfo(dtype).eps for dtype in (*floating, *casts))
        return cls(context, _numbers([sample]), _numbers(outputs), unit**0.5)

    def moved(self, sample: Tensor) -> float:
        """The relative deviation of a sample from that of the evaluation."""
        return relative_deviation(_numbers([sample]), self.sample)

    def check(self, outputs: Sequence[Tensor], moved: float = 0.0) -> None:
        """Raise RuntimeError if these are not the outputs of the evaluation that was made.

        Args:
            moved: by how much its sample deviates; infinite if nothing can be compared.
        """
        if math.isinf(moved):
            return
        deviation = relative_deviation(_numbers(outputs), self.numbers)
        if deviation > self.tolerance + _SLOPE * moved:
            raise RuntimeError(
                f"The network evaluated again in the backward pass deviates by {deviation:.1e} "
                "from its evaluation in the run, so the gradient would be wrong; let nothing that "
                "it uses change before the backward pass, or take DirectAdjoint()."
            )


def relative_deviation(a: Tensor, b: Tensor) -> float:
    """The norm of ``a - b`` relative to that of b; equal infinities and NaN do not deviate."""
    difference = torch.where(a == b, 0, a - b).nan_to_num(0.0)
    size = float(b.nan_to_num(0.0, 0.0, 0.0).norm())
    return float(difference.norm()) / size if size else float(difference.norm() > 0)


def _numbers(outputs: Sequence[Tensor]) -> Tensor:
    """Some numbers of the outputs, in at least float32."""
    flat = [t.detach().flatten() for t in outputs if t.is_floating_point()]
    some = [t[:: len(t) // _COUNT + 1] for t in flat]
    return torch.cat([t.to(torch.promote_types(t.dtype, torch.float32)) for t in some])
