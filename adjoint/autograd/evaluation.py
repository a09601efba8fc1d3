"""One network evaluation: its arguments as a flat list, its graph, its vector-Jacobian products."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adjoint.autograd.accumulate import SharedGradients
from adjoint.autograd.torch_internals import (
    TreeSpec,
    is_older,
    leaf_of,
    next_sequence_number,
    tree_flatten,
    tree_unflatten,
)


class RecordedEvaluation(NamedTuple):
    """An evaluation with its graph, which ends at the sample and at the conditions.

    Attributes:
        sample, conditions: leaves of this graph; of the conditions, those that require a gradient.
        outputs: the tensors that the function returned.
    """

    sample: Tensor
    conditions: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def accumulate_vjp(self, gradients: Sequence[Tensor], shared: SharedGradients) -> Tensor | None:
        """Add the products for what is shared; return that for the sample, if it needs one."""
        of_sample, of_shared = self.vjp(gradients, shared)
        shared.add(of_shared)
        return of_sample

    def vjp(
        self, gradients: Sequence[Tensor], shared: SharedGradients
    ) -> tuple[Tensor | None, Sequence[Tensor | None]]:
        """``g^T J`` for the sample and for what is shared, g being the outputs' gradients."""
        reached = shared.targets[len(self.conditions) :]
        _check_reached(self.outputs, {*map(id, (self.sample, *self.conditions, *reached))})
        pairs = [(y, g) for y, g in zip(self.outputs, gradients, strict=True) if y.requires_grad]
        wanted = [self.sample] if self.sample.requires_grad else []
        found: list[Tensor | None] = [None] * (len(wanted) + len(shared.targets))
        if pairs:
            outputs, vectors = zip(*pairs, strict=True)
            inputs = (*wanted, *self.conditions, *reached)
            found = list(torch.autograd.grad(outputs, inputs, vectors, allow_unused=True))
        if not wanted:
            return None, found
        return torch.zeros_like(self.sample) if found[0] is None else found[0], found[1:]


def record_first(
    evaluation: NetworkEvaluation, sample: Tensor, keep: bool
) -> tuple[RecordedEvaluation, SharedGradients]:
    """Run the first evaluation, and find what it shares with those to come.

    Args:
        keep: save its activations; if not, this record has no vector-Jacobian product.
    """
    begun = next_sequence_number()
    with nullcontext() if keep else _nothing_saved():
        recorded = record(evaluation, sample, requires_grad=True)
    own = {*map(id, (recorded.sample, *recorded.conditions))}
    reached = [leaf for leaf in _leaves(recorded.outputs, begun) if id(leaf) not in own]
    return recorded, SharedGradients.of(evaluation.differentiable, reached)


def record(
    evaluation: NetworkEvaluation, sample: Tensor, requires_grad: bool, part: int | None = None
) -> RecordedEvaluation:
    """Run the evaluation, or a part of its batch, with a graph of its own."""
    sample = sample.detach().requires_grad_(requires_grad)
    others = [other.detach().requires_grad_(other.requires_grad) for other in evaluation.others]
    with torch.enable_grad():
        outputs = evaluation.run(sample, others, part)
    return RecordedEvaluation(sample, tuple(o for o in others if o.requires_grad), outputs)


# ------------------------------------------------------------------------------ one evaluation


@dataclass(frozen=True, eq=False)
class NetworkEvaluation:
    """A function with all its arguments but the sample.

    Attributes:
        flat, spec: the arguments as a flattened tree, with None in place of the tensors.
        places: the positions of the tensors in ``flat``, that of the sample first.
        others: the tensors but the sample.
        batch_size: of the sample.
        split: parts of the batch that are evaluated one after the other.
        returned: the tree of what the function returned last.
    """

    function: Callable[..., Any]
    flat: tuple[Any, ...]
    spec: TreeSpec
    places: tuple[int, ...]
    others: tuple[Tensor, ...]
    batch_size: int
    split: int
    returned: list[TreeSpec] = field(default_factory=list)

    @classmethod
    def of(
        cls, function: Callable[..., Any], args: Any, kwargs: Any, split: int
    ) -> tuple[NetworkEvaluation, Tensor]:
        """The evaluation, and its sample: the first floating-point tensor."""
        flat, spec = tree_flatten((args, kwargs))
        places = [place for place, value in enumerate(flat) if isinstance(value, Tensor)]
        floating = [place for place in places if flat[place].is_floating_point()]
        if not floating or not flat[floating[0]].ndim:
            raise ValueError(
                "The network was called without a batch of floating-point numbers; pass the sample "
                "[B, ...] as its first tensor."
            )
        places = [floating[0], *(place for place in places if place != floating[0])]
        sample, *others = (flat[place] for place in places)
        rest = tuple(None if isinstance(value, Tensor) else value for value in flat)
        evaluation = cls(function, rest, spec, tuple(places), tuple(others), len(sample), split)
        return evaluation, sample

    @property
    def differentiable(self) -> tuple[Tensor, ...]:
        """The tensors beside the sample that require a gradient."""
        return tuple(other for other in self.others if other.requires_grad)

    def run(
        self, sample: Tensor, others: Sequence[Tensor] | None = None, part: int | None = None
    ) -> tuple[Tensor, ...]:
        """The tensors that the function returns.

        Args:
            others: replace its own.
            part: which part of the batch ``sample`` is; None for the whole batch, in parts.
        """
        chosen = self.others if others is None else others
        if part is not None or self.split == 1:
            return self._once(sample, [self._part(other, part) for other in chosen])
        outputs = [
            self._once(x, [self._part(other, number) for other in chosen])
            for number, x in enumerate(sample.chunk(self.split))
        ]
        return tuple(torch.cat(columns) for columns in zip(*outputs, strict=True))

    def _part(self, other: Tensor, part: int | None) -> Tensor:
        if part is None or self.split == 1 or not other.ndim or len(other) != self.batch_size:
            return other
        return other.chunk(self.split)[part]

    def _once(self, sample: Tensor, others: Sequence[Tensor]) -> tuple[Tensor, ...]:
        flat = list(self.flat)
        for place, tensor in zip(self.places, (sample, *others), strict=True):
            flat[place] = tensor
        args, kwargs = tree_unflatten(flat, self.spec)
        outputs, spec = tree_flatten(self.function(*args, **kwargs))
        self.returned[:] = [spec]
        if not all(isinstance(output, Tensor) for output in outputs):
            raise ValueError(
                "The network returned something that is not a tensor; return tensors, in tuples, "
                "lists or dictionaries."
            )
        return tuple(outputs)

    def as_returned(self, outputs: tuple[Tensor, ...]) -> Any:
        """The tensors in the structure in which the function returned them."""
        return tree_unflatten(list(outputs), self.returned[0])


@contextmanager
def _nothing_saved() -> Iterator[None]:
    """For a graph that is inspected but never backpropagated through."""
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: None, lambda nothing: nothing):
        yield


# ------------------------------------------------------------------------------------ the graph


def _leaves(outputs: Sequence[Tensor], begun: int) -> list[Tensor]:
    """The leaves of the graph; ValueError if it reaches operations from before the evaluation."""
    found: dict[int, Tensor] = {}
    pending = [output.grad_fn for output in outputs if output.grad_fn is not None]
    seen = set(pending)
    while pending:
        node = pending.pop()
        leaf = leaf_of(node)
        if leaf is not None:
            found[id(leaf)] = leaf
            continue
        if is_older(node, begun):
            raise ValueError(
                f"The network uses a tensor that was itself computed with gradients (by "
                f"{node.name()}) and is not among its arguments, so its gradient would be lost; "
                "pass it in `conditions`."
            )
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                pending.append(following)
    return list(found.values())


def _check_reached(outputs: Sequence[Tensor], known: set[int]) -> None:
    """Raise ValueError if a leaf is reached that the first evaluation did not reach."""
    new = [leaf for leaf in _leaves(outputs, 0) if id(leaf) not in known]
    if new:
        raise ValueError(
            f"The network uses a tensor of shape {tuple(new[0].shape)} that requires a gradient "
            "and that its first evaluation did not use, so its gradient would be incomplete; pass "
            "it in `conditions`, or take DirectAdjoint()."
        )
