r"""Network evaluations that save their inputs and are recomputed in the backward pass.

An evaluation :math:`y = f(x, c; \theta)` saves x alone. The backward pass evaluates it once more,
with its activations, and takes one vector-Jacobian product,

.. math:: (g_x, g_c, g_\theta) = g_y^T \, \frac{\partial f}{\partial (x, c, \theta)}

so a run of N evaluations holds N samples and the activations of one evaluation, and its gradient is
exact. The products for what all evaluations share, c and theta, are summed in at least float32 and
handed to autograd once: each shared tensor is rounded once, and reduced once over processes.

It differs from :func:`torch.utils.checkpoint.checkpoint` in these sums, in evaluating parts of a
batch one after the other, and in raising an error where a gradient would be lost. Nothing here
knows samplers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from adjoint.autograd.accumulate import SharedGradients
from adjoint.autograd.context import ExecutionContext
from adjoint.autograd.evaluation import NetworkEvaluation, RecordedEvaluation, record, record_first

Offload = Literal["none", "cpu"]


@dataclass(eq=False)
class Recomputed:
    """A function whose evaluations are recomputed in the backward pass.

    Attributes:
        function: takes and returns tensors, anywhere in tuples, lists and dictionaries; it must
            return the same for the same arguments. The first floating-point tensor it is given is
            the sample; all others are shared, and best the same tensors in every evaluation.
        offload: ``cpu`` saves the samples there, and moves one back when it is needed.
        split: parts of the batch that are evaluated one after the other; the activations of one
            part are held at once. The function must treat samples alike, and every tensor whose
            first dimension is the batch size is split with it.

    What the function uses without being given it, parameters above all, is found in the first
    evaluation. Raises ValueError if that is a tensor computed with gradients: it must be an
    argument.
    """

    function: Callable[..., Any]
    offload: Offload = "none"
    split: int = 1
    _shared: dict[tuple[int, ...], SharedGradients] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        if self.split < 1:
            raise ValueError(f"split is {self.split}; it must be at least 1.")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(args, kwargs)

    def call(self, args: Any, kwargs: Any, keep: bool = False) -> Any:
        """Call the function; ``keep`` saves the activations, so that nothing is recomputed."""
        evaluation, sample = NetworkEvaluation.of(self.function, args, kwargs, self.split)
        if not torch.is_grad_enabled():
            return evaluation.as_returned(evaluation.run(sample))
        key = tuple(map(id, evaluation.differentiable))
        recorded, context = None, ExecutionContext.capture(sample)
        if key not in self._shared:
            recorded, self._shared[key] = record_first(evaluation, sample, keep)
        elif keep:
            recorded = record(evaluation, sample, requires_grad=True)
        with _offloaded(self.offload):
            outputs = _recompute(evaluation, self._shared[key], context, recorded, keep, sample)
        return evaluation.as_returned(outputs)


@contextmanager
def _offloaded(where: Offload) -> Iterator[None]:
    if where == "none":
        yield
        return
    with torch.autograd.graph.save_on_cpu():
        yield


class _Recompute(torch.autograd.Function):
    """One evaluation; already ``recorded`` if it is the first, or keeps its activations."""

    @staticmethod
    def forward(
        ctx: Any,
        evaluation: NetworkEvaluation,
        shared: SharedGradients,
        context: ExecutionContext,
        recorded: RecordedEvaluation | None,
        keep: bool,
        sample: Tensor,
        token: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.evaluation, ctx.shared, ctx.context = evaluation, shared, context
        ctx.kept = recorded if keep else None
        ctx.save_for_backward(sample)
        if recorded is None:
            return evaluation.run(sample)
        return tuple(output.detach() for output in recorded.outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        needed, nothing = ctx.needs_input_grad[5], (None,) * 5
        if ctx.kept is not None:
            kept, ctx.kept = ctx.kept, None  # kept for one pass; the next one recomputes
            return (*nothing, kept.accumulate_vjp(gradients, ctx.shared), None)
        (sample,) = ctx.saved_tensors
        split = ctx.evaluation.split
        columns = (gradient.chunk(split) for gradient in gradients)
        of_sample: list[Tensor] = []
        for part, (x, *vectors) in enumerate(zip(sample.chunk(split), *columns, strict=True)):
            with ctx.context.restored():
                recorded = record(ctx.evaluation, x, needed, part)
            product = recorded.accumulate_vjp(vectors, ctx.shared)
            of_sample += [] if product is None else [product]
        return (*nothing, torch.cat(of_sample) if needed else None, None)


def _recompute(
    evaluation: NetworkEvaluation,
    shared: SharedGradients,
    context: ExecutionContext,
    recorded: RecordedEvaluation | None,
    keep: bool,
    sample: Tensor,
) -> tuple[Tensor, ...]:
    outputs: tuple[Tensor, ...] = _Recompute.apply(  # type: ignore[no-untyped-call]
        evaluation, shared, context, recorded, keep, sample, shared.token
    )
    return outputs


def refuse_second_derivative() -> None:
    """Raise RuntimeError where the backward pass is itself recorded: it would be incomplete."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "create_graph=True was passed, but this gradient has no gradient of its own; take "
            "DirectAdjoint(), which is the only adjoint with second derivatives."
        )
