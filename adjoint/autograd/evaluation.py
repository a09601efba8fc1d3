"""One network evaluation: its arguments as a flat list, its graph, its vector-Jacobian products."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adjoint.autograd.accumulate import SharedGradients
from adjoint.autograd.context import ExecutionContext, PastEvaluation, uncached_casts
from adjoint.autograd.network_state import Modules, NetworkState, modules_of
from adjoint.autograd.torch_internals import (
    TreeSpec,
    is_older,
    leaf_of,
    next_sequence_number,
    tree_flatten,
    tree_unflatten,
)
from adjoint.autograd.used_tensors import watched


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
    saving = nullcontext() if keep else _nothing_saved()
    with saving, watched([sample, *evaluation.others]) as used:
        recorded = record(evaluation, sample, requires_grad=True)
    evaluation.state.add(used, evaluation.network.modules)
    own = {*map(id, (recorded.sample, *recorded.conditions))}
    leaves = [*_leaves(recorded.outputs, begun), *evaluation.network.modules.trained]
    reached = {id(leaf): leaf for leaf in leaves if id(leaf) not in own}.values()
    return recorded, SharedGradients.of(evaluation.differentiable, [*reached])


def record(
    evaluation: NetworkEvaluation, sample: Tensor, requires_grad: bool
) -> RecordedEvaluation:
    """Make the evaluation with a graph of its own."""
    sample, others = _leaves_of(evaluation, sample, requires_grad)
    with torch.enable_grad():
        outputs = evaluation.run(sample, others)
    return RecordedEvaluation(sample, tuple(o for o in others if o.requires_grad), outputs)


def record_again(
    evaluation: NetworkEvaluation,
    sample: Tensor,
    requires_grad: bool,
    part: int = 0,
    moved: float = 0.0,
) -> RecordedEvaluation:
    """Repeat the evaluation, of a part of its batch, with a graph of its own.

    Args:
        moved: as of :meth:`NetworkEvaluation.run_again`.
    """
    sample, others = _leaves_of(evaluation, sample, requires_grad)
    with torch.enable_grad():
        outputs = evaluation.run_again(sample, others, part, moved)
    return RecordedEvaluation(sample, tuple(o for o in others if o.requires_grad), outputs)


def _leaves_of(
    evaluation: NetworkEvaluation, sample: Tensor, requires_grad: bool
) -> tuple[Tensor, list[Tensor]]:
    others = [other.detach().requires_grad_(other.requires_grad) for other in evaluation.others]
    return sample.detach().requires_grad_(requires_grad), others


# ------------------------------------------------------------------------------ one evaluation


class EvaluatedNetwork(NamedTuple):
    """A function that is evaluated many times, and what is known of it.

    Attributes:
        modules: that it uses.
        split: parts of the batch that are evaluated one after the other.
        shared: arguments that belong to no sample, however many rows they have.
    """

    function: Callable[..., Any]
    modules: Modules
    split: int = 1
    shared: tuple[Tensor, ...] = ()

    @classmethod
    def of(
        cls, function: Callable[..., Any], split: int = 1, shared: Sequence[Tensor] = ()
    ) -> EvaluatedNetwork:
        """The network with the modules that are found in the function."""
        return cls(function, Modules.of(modules_of(function)), split, tuple(shared))


@dataclass(frozen=True, eq=False)
class NetworkEvaluation:
    """An evaluation with all its arguments but the sample.

    Attributes:
        flat, spec: the arguments as a flattened tree, with None in place of the tensors.
        places: the positions of the tensors in ``flat``, that of the sample first.
        others: the tensors but the sample.
        batch_size: of the sample.
        state: of weights, buffers and arguments before the evaluation.
        past: how each part of the batch was evaluated.
        returned: the tree of what the function returned last.
    """

    network: EvaluatedNetwork
    flat: tuple[Any, ...]
    spec: TreeSpec
    places: tuple[int, ...]
    others: tuple[Tensor, ...]
    batch_size: int
    state: NetworkState
    past: list[PastEvaluation] = field(default_factory=list)
    returned: list[TreeSpec] = field(default_factory=list)

    @classmethod
    def of(
        cls, network: EvaluatedNetwork, args: Any, kwargs: Any
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
        state = NetworkState.capture(network.modules, others)
        evaluation = cls(network, rest, spec, tuple(places), tuple(others), len(sample), state)
        return evaluation, sample

    @property
    def differentiable(self) -> tuple[Tensor, ...]:
        """The tensors beside the sample that require a gradient."""
        return tuple(other for other in self.others if other.requires_grad)

    def run(self, sample: Tensor, others: Sequence[Tensor] | None = None) -> tuple[Tensor, ...]:
        """The tensors that the function returns for the batch, evaluated in parts.

        Args:
            others: replace its own.

        Raises ValueError if the network changes its own buffers meanwhile.
        """
        chosen = self.others if others is None else others
        parts = enumerate(self.parts_of(sample))
        columns = [self._first(x, self._part(chosen, part), part) for part, x in parts]
        self.state.check_own_buffers()
        return _together(columns)

    def _first(self, sample: Tensor, others: Sequence[Tensor], part: int) -> tuple[Tensor, ...]:
        context = ExecutionContext.capture(sample)
        with uncached_casts():
            outputs = self._once(sample, others)
        self.past[part:] = [PastEvaluation.of(context, sample, outputs)]
        return outputs

    def run_again(
        self, sample: Tensor, others: Sequence[Tensor], part: int, moved: float = 0.0
    ) -> tuple[Tensor, ...]:
        """Evaluate a part of the batch as it was evaluated before.

        Args:
            moved: the relative deviation of the sample from that of the evaluation; infinite if
                it is another one, so that the result is not compared.

        Raises RuntimeError if the result is, or would be, another one.
        """
        past = self.past[part]
        self.state.check_unchanged()
        with past.context.restored():
            outputs = self._once(sample, self._part(others, part))
        past.check(outputs, moved)
        return outputs

    def run_parts(self, sample: Tensor) -> tuple[Tensor, ...]:
        """The outputs for the parts of the batch, in one."""
        parts = enumerate(self.parts_of(sample))
        return _together([self._once(x, self._part(self.others, part)) for part, x in parts])

    def run_whole(self, sample: Tensor) -> tuple[Tensor, ...]:
        """The outputs for the whole batch at once."""
        return self._once(sample, self.others)

    def parts_of(self, batch: Tensor) -> Sequence[Tensor]:
        """The parts that are evaluated one after the other."""
        return batch.chunk(self.network.split) if self.network.split > 1 else (batch,)

    def _part(self, others: Sequence[Tensor], part: int) -> list[Tensor]:
        return [
            self.parts_of(other)[part] if self._of_samples(own) else other
            for other, own in zip(others, self.others, strict=True)
        ]

    def _of_samples(self, other: Tensor) -> bool:
        """Whether an argument has a row for each sample."""
        declared = any(other is shared for shared in self.network.shared)
        return other.ndim > 0 and len(other) == self.batch_size and not declared

    def _once(self, sample: Tensor, others: Sequence[Tensor]) -> tuple[Tensor, ...]:
        flat = list(self.flat)
        for place, tensor in zip(self.places, (sample, *others), strict=True):
            flat[place] = tensor
        args, kwargs = tree_unflatten(flat, self.spec)
        outputs, spec = tree_flatten(self.network.function(*args, **kwargs))
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


def _together(parts: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """The outputs of a batch from those of its parts."""
    if len(parts) == 1:
        return parts[0]
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


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
