"""Sums of the gradients of what all network evaluations of a run share: weights and conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adjoint.autograd.torch_internals import backward_pass


@dataclass(eq=False)
class SharedGradients:
    """Tensors that evaluations share, and the sums of their gradients.

    Attributes:
        targets: the shared tensors: conditions first, then what the function reaches by itself.
        token: a 0-d tensor that each evaluation takes as an input. Its node stands before all
            evaluations in the graph, so its backward runs after all of theirs and hands the sums to
            autograd.
        sums: one for each target, in at least float32; None before the first gradient.
        summed_in: the backward pass that the sums belong to.
    """

    targets: tuple[Tensor, ...]
    token: Tensor
    sums: list[Tensor | None]
    summed_in: int = -1

    @classmethod
    def of(cls, conditions: Sequence[Tensor], reached: Sequence[Tensor]) -> SharedGradients:
        targets = (*conditions, *reached)
        sums: list[Tensor | None] = [None] * len(targets)
        return cls(targets, _hand_over(sums, *targets), sums)

    def add(self, gradients: Sequence[Tensor | None]) -> None:
        """Add the gradients of one evaluation; half precision is summed in float32."""
        # A backward pass for the sample alone never reaches the token; the next begins anew.
        if self.summed_in != (now := backward_pass()):
            self.sums[:], self.summed_in = [None] * len(self.sums), now
        for place, gradient in enumerate(gradients):
            if gradient is None:
                continue
            wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
            total = self.sums[place]
            self.sums[place] = wide if total is None else total + wide


class _HandOver(torch.autograd.Function):
    """The token's node: its backward returns the sums as the gradients of the targets."""

    @staticmethod
    def forward(ctx: Any, sums: list[Tensor | None], *targets: Tensor) -> Tensor:
        ctx.sums, ctx.dtypes = sums, [target.dtype for target in targets]
        return torch.zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        gradients = [
            None if total is None else total.to(dtype)
            for total, dtype in zip(ctx.sums, ctx.dtypes, strict=True)
        ]
        return (None, *gradients)


def _hand_over(sums: list[Tensor | None], *targets: Tensor) -> Tensor:
    token: Tensor = _HandOver.apply(sums, *targets)  # type: ignore[no-untyped-call]
    return token
