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

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from adjoint.autograd.accumulate import SharedGradients
from adjoint.autograd.context import ExecutionContext, relative_deviation
from adjoint.autograd.evaluation import (
    EvaluatedNetwork,
    NetworkEvaluation,
    RecordedEvaluation,
    record,
    record_again,
    record_first,
)

Offload = Literal["none", "cpu"]


@dataclass(eq=False)
class Recomputed:
    """A function whose evaluations are recomputed in the backward pass.

    Attributes:
        network: takes and returns tensors, anywhere in tuples, lists and dictionaries; it must
            return the same for the same arguments. The first floating-point tensor it is given is
            the sample; all others are shared, and best the same tensors in every evaluation. If it
            is split, only one part's activations are held at once; it must treat samples alike,
            and every tensor whose first dimension is the batch size is split with it.
        offload: ``cpu`` saves the samples there, and moves one back when it is needed.

    Random numbers, autocast, and the device and dtype of weights are in the backward pass as they
    were. What the function uses without being given it is found in its modules, and in the graph of
    its first evaluation. Raises ValueError if that is a tensor computed with gradients, which must
    be an argument; for a network that changes its own buffers; and for a split that changes the
    result. Raises RuntimeError in the backward pass if what it uses was changed since.
    """

    network: EvaluatedNetwork
    offload: Offload = "none"
    _shared: dict[tuple[int, ...], SharedGradients] = field(
        default_factory=dict, init=False, repr=False
    )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(args, kwargs)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def call(self, args: Any, kwargs: Any, keep: bool = False) -> Any:
        """Call the function; ``keep`` saves the activations, so that nothing is recomputed."""
        if not torch.is_grad_enabled():
            return self.network.function(*args, **kwargs)
        evaluation, sample = NetworkEvaluation.of(self.network, args, kwargs)
        key = tuple(map(id, evaluation.differentiable))
        recorded = None
        if key not in self._shared:
            with _explained(evaluation):
                recorded, self._shared[key] = record_first(evaluation, sample, keep)
            _check_split(evaluation, sample, recorded)
        elif keep:
            recorded = record(evaluation, sample, requires_grad=True)
        with _offloaded(self.offload):
            outputs = _recompute(evaluation, self._shared[key], recorded, keep, sample)
        return evaluation.as_returned(outputs)


@contextmanager
def _explained(evaluation: NetworkEvaluation) -> Iterator[None]:
    """Say that the batch was split, where the network fails."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        split = evaluation.network.split
        if split == 1:
            raise
        raise ValueError(
            f"split is {split}, but the network fails on a part of the batch ({error}); take "
            "split=1, or wrap a condition that belongs to no sample in samplers.Unbatched."
        ) from error


@torch.no_grad()
def _check_split(
    evaluation: NetworkEvaluation, sample: Tensor, recorded: RecordedEvaluation
) -> None:
    """Raise ValueError if the parts give another result than the whole batch.

    Random numbers of parts are others than those of the batch, so networks with dropout are
    compared in evaluation mode, and those that are random even then are refused.
    """
    if len(evaluation.past) == 1:
        return
    outputs = [output.detach() for output in recorded.outputs]
    if not evaluation.past[0].context.random_since():
        deviation = _deviation(outputs, evaluation.run_whole(sample))
    else:
        context = ExecutionContext.capture(sample)
        with context.restored(), evaluation.network.modules.evaluating():
            deviation = _deviation(evaluation.run_parts(sample), evaluation.run_whole(sample))
            if context.random_since():
                raise ValueError(
                    f"split is {evaluation.network.split}, but the network generates random "
                    "numbers even in evaluation mode, so its parts cannot be compared with the "
                    "whole batch; take split=1."
                )
    if deviation > evaluation.past[0].tolerance:
        raise ValueError(
            f"split is {evaluation.network.split}, but the network evaluated in parts deviates by "
            f"{deviation:.1e} from the whole batch: its samples depend on each other, or an "
            f"argument with {evaluation.batch_size} rows belongs to no sample; take split=1, or "
            "wrap such a condition in samplers.Unbatched."
        )


def _deviation(parts: Sequence[Tensor], whole: Sequence[Tensor]) -> float:
    return max(relative_deviation(a, b) for a, b in zip(parts, whole, strict=True))


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
        recorded: RecordedEvaluation | None,
        keep: bool,
        sample: Tensor,
        token: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.evaluation, ctx.shared = evaluation, shared
        ctx.kept = recorded if keep else None
        ctx.save_for_backward(sample)
        if recorded is None:
            return evaluation.run(sample)
        return tuple(output.detach() for output in recorded.outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        needed, nothing = ctx.needs_input_grad[4], (None,) * 4
        if ctx.kept is not None:
            kept, ctx.kept = ctx.kept, None  # kept for one pass; the next one recomputes
            return (*nothing, kept.accumulate_vjp(gradients, ctx.shared), None)
        (sample,) = ctx.saved_tensors
        evaluation = ctx.evaluation
        columns = map(evaluation.parts_of, (sample, *gradients))
        of_sample: list[Tensor] = []
        with evaluation.state.placed():
            for part, (x, *vectors) in enumerate(zip(*columns, strict=True)):
                recorded = record_again(evaluation, x, needed, part)
                product = recorded.accumulate_vjp(vectors, ctx.shared)
                of_sample += [] if product is None else [product]
        return (*nothing, torch.cat(of_sample) if needed else None, None)


def _recompute(
    evaluation: NetworkEvaluation,
    shared: SharedGradients,
    recorded: RecordedEvaluation | None,
    keep: bool,
    sample: Tensor,
) -> tuple[Tensor, ...]:
    outputs: tuple[Tensor, ...] = _Recompute.apply(  # type: ignore[no-untyped-call]
        evaluation, shared, recorded, keep, sample, shared.token
    )
    return outputs


def refuse_second_derivative() -> None:
    """Raise RuntimeError where the backward pass is itself recorded: it would be incomplete."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "create_graph=True was passed, but this gradient has no gradient of its own; take "
            "DirectAdjoint(), which is the only adjoint with second derivatives."
        )
