"""What the network calls of a run share, and where the gradients of it are summed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(eq=False)
class Shared:
    """Tensors that calls share, and the sums of their gradients.

    Attributes:
        targets: given to the calls, or reached by the function.
        token: connects the calls with the place that hands the sums to autograd.
        summed: the pass back that the sums are of.
    """

    targets: tuple[Tensor, ...]
    token: Tensor
    sums: list[Tensor | None]
    summed: int = -1

    @classmethod
    def of(cls, given: Sequence[Tensor], reached: Sequence[Tensor]) -> Shared:
        targets = (*given, *reached)
        sums: list[Tensor | None] = [None] * len(targets)
        return cls(targets, _hand_over(sums, *targets), sums)

    def add(self, gradients: Sequence[Tensor | None]) -> None:
        """Add the products of one call, in float32 if they are of half precision."""
        # A pass that wants nothing but the sample hands no sums over; the next begins anew.
        if self.summed != (now := torch._C._current_graph_task_id()):
            self.sums[:], self.summed = [None] * len(self.sums), now
        for place, gradient in enumerate(gradients):
            if gradient is None:
                continue
            wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
            known = self.sums[place]
            self.sums[place] = wide if known is None else known + wide


class _HandOver(torch.autograd.Function):
    """Stands before all calls in the graph, so after all of them on the way back."""

    @staticmethod
    def forward(ctx: Any, sums: list[Tensor | None], *targets: Tensor) -> Tensor:
        ctx.sums, ctx.dtypes = sums, [target.dtype for target in targets]
        return torch.zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        found = [
            None if total is None else total.to(dtype)
            for total, dtype in zip(ctx.sums, ctx.dtypes, strict=True)
        ]
        return (None, *found)


def _hand_over(sums: list[Tensor | None], *targets: Tensor) -> Tensor:
    token: Tensor = _HandOver.apply(sums, *targets)  # type: ignore[no-untyped-call]
    return token
