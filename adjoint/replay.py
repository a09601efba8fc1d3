r"""Network calls that keep their inputs and are made again when a gradient passes back.

A call ``y = f(x, c; theta)`` keeps x alone. Backwards it is made once more, with its activations,
and gives one vector-Jacobian product,

.. math:: (g_x, g_c, g_\theta) = g_y^T \, \frac{\partial f}{\partial (x, c, \theta)}

so a run of N calls holds N samples and the activations of one call, and its gradient is exact. The
products for what all calls share, c and theta, are summed here, in at least float32, and handed to
autograd once, so that each shared tensor is rounded once, and reduced once over processes.

Nothing here knows samplers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from adjoint.calls import Call, Recorded, first_record, record
from adjoint.shared import Shared
from adjoint.surroundings import Surroundings

Offload = Literal["none", "cpu"]


@dataclass(eq=False)
class Replayed:
    """A function that is called many times in a run, with calls that are made again backwards.

    Attributes:
        function: takes and returns tensors, anywhere in tuples, lists and dictionaries; it must
            give the same for the same arguments. The first floating-point tensor it is given is the
            sample of the call. All others are shared: they are best the same tensors in every call.
        offload: ``cpu`` keeps the samples there, and brings one back when it is needed.
        split: in how many parts of the batch a call is made, one after the other. The activations
            of one part are held at once. The function must treat samples alike, and every tensor
            whose first dimension is as long as the batch is split with it.

    What the function reaches without being given it, parameters above all, is found in its first
    call. Raises ValueError if that is a tensor that was itself computed with gradients: it has to
    be an argument.
    """

    function: Callable[..., Any]
    offload: Offload = "none"
    split: int = 1
    _shared: dict[tuple[int, ...], Shared] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.split < 1:
            raise ValueError(f"A call is split into {self.split} parts; it has at least one.")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(args, kwargs)

    def call(self, args: Any, kwargs: Any, keep: bool = False) -> Any:
        """Call the function; ``keep`` holds the activations, so that nothing is made again."""
        call, sample = Call.of(self.function, args, kwargs, self.split)
        if not torch.is_grad_enabled():
            return call.as_returned(call.evaluate(sample))
        key, recorded, surroundings = tuple(map(id, call.given)), None, Surroundings.now(sample)
        if key not in self._shared:
            recorded, self._shared[key] = first_record(call, sample, keep)
        elif keep:
            recorded = record(call, sample, wanted=True)
        with _offloaded(self.offload):
            outputs = _replay(call, self._shared[key], surroundings, recorded, keep, sample)
        return call.as_returned(outputs)


@contextmanager
def _offloaded(where: Offload) -> Iterator[None]:
    if where == "none":
        yield
        return
    with torch.autograd.graph.save_on_cpu():
        yield


class _Replay(torch.autograd.Function):
    """One call; it was ``recorded`` already if it is the first, or is kept."""

    @staticmethod
    def forward(
        ctx: Any,
        call: Call,
        shared: Shared,
        surroundings: Surroundings,
        recorded: Recorded | None,
        keep: bool,
        sample: Tensor,
        token: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.call, ctx.shared, ctx.surroundings = call, shared, surroundings
        ctx.kept = recorded if keep else None
        ctx.save_for_backward(sample)
        if recorded is None:
            return call.evaluate(sample)
        return tuple(output.detach() for output in recorded.outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        wanted, nothing = ctx.needs_input_grad[5], (None,) * 5
        if ctx.kept is not None:
            kept, ctx.kept = ctx.kept, None  # activations serve one pass; the next makes them again
            return (*nothing, kept.product(gradients, ctx.shared), None)
        (sample,) = ctx.saved_tensors
        columns = (gradient.chunk(ctx.call.split) for gradient in gradients)
        of_sample: list[Tensor] = []
        for part, (x, *given) in enumerate(
            zip(sample.chunk(ctx.call.split), *columns, strict=True)
        ):
            with ctx.surroundings.again():
                recorded = record(ctx.call, x, wanted, part)
            product = recorded.product(given, ctx.shared)
            of_sample += [] if product is None else [product]
        return (*nothing, torch.cat(of_sample) if wanted else None, None)


def _replay(
    call: Call,
    shared: Shared,
    surroundings: Surroundings,
    recorded: Recorded | None,
    keep: bool,
    sample: Tensor,
) -> tuple[Tensor, ...]:
    outputs: tuple[Tensor, ...] = _Replay.apply(  # type: ignore[no-untyped-call]
        call, shared, surroundings, recorded, keep, sample, shared.token
    )
    return outputs


def refuse_second_derivative() -> None:
    """Raise RuntimeError where a graph of the way back is recorded, which would be incomplete."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "A gradient of this gradient was asked for (create_graph=True), which only Direct() "
            "can give."
        )
