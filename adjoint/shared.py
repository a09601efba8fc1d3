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

    targets: given to the calls, or reached by the function.
    token: connects the calls with the place that hands the sums to autograd.
    """

    targets: tuple[Tensor, ...]
    token: Tensor
    sums: list[Tensor | None]

    @classmethod
    def of(cls, given: Sequence[Tensor], reached: Sequence[Tensor]) -> Shared:
        targets = (*given, *reached)
        sums: list[Tensor | None] = [None] * len(targets)
        return cls(targets, _hand_over(sums, *targets), sums)

    def add(self, gradients: Sequence[Tensor | None]) -> None:
        """Add the products of one call, in float32 if they are of half precision."""
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
        ctx.sums[:] = [None] * len(found)  # another pass back begins anew
        return (None, *found)


def _hand_over(sums: list[Tensor | None], *targets: Tensor) -> Tensor:
    token: Tensor = _HandOver.apply(sums, *targets)  # type: ignore[no-untyped-call]
    return token
