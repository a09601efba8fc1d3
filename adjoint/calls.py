"""One network call: its arguments as a flat list, its graph, and the products with its Jacobian."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from adjoint.shared import Shared


class Recorded(NamedTuple):
    """A call with its graph, which ends at the sample and at what is given beside it."""

    sample: Tensor
    given: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def product(self, gradients: Sequence[Tensor], shared: Shared) -> Tensor | None:
        """Add the products for what is shared, and return that for the sample, if it is wanted."""
        of_sample, of_shared = self.products(gradients, shared)
        shared.add(of_shared)
        return of_sample

    def products(
        self, gradients: Sequence[Tensor], shared: Shared
    ) -> tuple[Tensor | None, Sequence[Tensor | None]]:
        """The products of the gradients of the outputs, for the sample and for what is shared."""
        reached = shared.targets[len(self.given) :]
        _check_reached(self.outputs, {*map(id, (self.sample, *self.given, *reached))})
        pairs = [(y, g) for y, g in zip(self.outputs, gradients, strict=True) if y.requires_grad]
        wanted = [self.sample] if self.sample.requires_grad else []
        found: list[Tensor | None] = [None] * (len(wanted) + len(shared.targets))
        if pairs:
            outputs, given = zip(*pairs, strict=True)
            inputs = (*wanted, *self.given, *reached)
            found = list(torch.autograd.grad(outputs, inputs, given, allow_unused=True))
        if not wanted:
            return None, found
        return torch.zeros_like(self.sample) if found[0] is None else found[0], found[1:]


def first_record(call: Call, sample: Tensor, keep: bool) -> tuple[Recorded, Shared]:
    """Make the first call, and find what it shares with those to come.

    Args:
        keep: whether its activations are kept; if not, no gradient can pass back through this
            record.
    """
    begun = _sequence_number()
    with nullcontext() if keep else _nothing_saved():
        recorded = record(call, sample, wanted=True)
    own = {*map(id, (recorded.sample, *recorded.given))}
    reached = [leaf for leaf in _leaves(recorded.outputs, begun) if id(leaf) not in own]
    return recorded, Shared.of(call.given, reached)


def record(call: Call, sample: Tensor, wanted: bool, part: int | None = None) -> Recorded:
    """Make the call, or a part of it, with a graph of its own."""
    sample = sample.detach().requires_grad_(wanted)
    others = [other.detach().requires_grad_(other.requires_grad) for other in call.others]
    with torch.enable_grad():
        outputs = call.evaluate(sample, others, part)
    return Recorded(sample, tuple(o for o in others if o.requires_grad), outputs)


# ---------------------------------------------------------------------------------- one call


@dataclass(frozen=True, eq=False)
class Call:
    """A function with its arguments but for the sample.

    Attributes:
        flat, spec: the arguments as a tree, with None in place of the tensors.
        places: where the tensors stand, that of the sample first; others: all but the sample.
        count: how long the batch is.
        returned: the tree of what the function returned last.
    """

    function: Callable[..., Any]
    flat: tuple[Any, ...]
    spec: TreeSpec
    places: tuple[int, ...]
    others: tuple[Tensor, ...]
    count: int
    split: int
    returned: list[TreeSpec] = field(default_factory=list)

    @classmethod
    def of(
        cls, function: Callable[..., Any], args: Any, kwargs: Any, split: int
    ) -> tuple[Call, Tensor]:
        """The call, and its sample."""
        flat, spec = tree_flatten((args, kwargs))
        places = [place for place, value in enumerate(flat) if isinstance(value, Tensor)]
        floating = [place for place in places if flat[place].is_floating_point()]
        if not floating or not flat[floating[0]].ndim:
            raise ValueError("The network was called without a batch of floating-point numbers.")
        places = [floating[0], *(place for place in places if place != floating[0])]
        sample, *others = (flat[place] for place in places)
        rest = tuple(None if isinstance(value, Tensor) else value for value in flat)
        call = cls(function, rest, spec, tuple(places), tuple(others), len(sample), split)
        return call, sample

    @property
    def given(self) -> tuple[Tensor, ...]:
        """The tensors beside the sample that require a gradient."""
        return tuple(other for other in self.others if other.requires_grad)

    def evaluate(
        self, sample: Tensor, others: Sequence[Tensor] | None = None, part: int | None = None
    ) -> tuple[Tensor, ...]:
        """The tensors that the function returns.

        Args:
            others: in place of its own.
            part: which part of the batch ``sample`` is; the whole batch, in parts, if None.
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
        if part is None or self.split == 1 or not other.ndim or len(other) != self.count:
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
            raise ValueError("The network returned something that is no tensor.")
        return tuple(outputs)

    def as_returned(self, outputs: tuple[Tensor, ...]) -> Any:
        """The tensors in the form in which the function returned them."""
        return tree_unflatten(list(outputs), self.returned[0])


@contextmanager
def _nothing_saved() -> Iterator[None]:
    """For a graph that is looked at and never gone back through."""
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: None, lambda nothing: nothing):
        yield


# ------------------------------------------------------------------------------- the graph


def _sequence_number() -> int:
    """Operations from now on have larger numbers."""
    node = torch.zeros((), requires_grad=True).clone().grad_fn
    assert node is not None
    return int(node._sequence_nr())


def _leaves(outputs: Sequence[Tensor], begun: int) -> list[Tensor]:
    """The leaves of the graph; ValueError if it goes back beyond the beginning of the call."""
    found: dict[int, Tensor] = {}
    pending = [output.grad_fn for output in outputs if output.grad_fn is not None]
    seen = set(pending)
    while pending:
        node = pending.pop()
        if node.name().endswith("AccumulateGrad"):  # which stands for a leaf
            variable: Tensor = node.variable  # type: ignore[attr-defined]
            found[id(variable)] = variable
            continue
        if node._sequence_nr() < begun:
            raise ValueError(
                "The network reaches a tensor that was itself computed with gradients (by "
                f"{node.name()}) and that it was not given; pass it in `conditions`, so that its "
                "gradient is not lost."
            )
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                pending.append(following)
    return list(found.values())


def _check_reached(outputs: Sequence[Tensor], known: set[int]) -> None:
    """Raise ValueError if a leaf is reached that was not in the first call."""
    new = [leaf for leaf in _leaves(outputs, 0) if id(leaf) not in known]
    if new:
        raise ValueError(
            f"The network reaches a tensor of shape {tuple(new[0].shape)} that requires a gradient "
            "and that it did not reach in its first call; its gradient would be incomplete."
        )
