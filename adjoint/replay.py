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

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

Offload = Literal["none", "cpu"]


@dataclass(eq=False)
class Replayed:
    """A function that is called many times in a run, with calls that are made again backwards.

    function: takes and returns tensors, anywhere in tuples, lists and dictionaries; it must give
        the same for the same arguments. The first floating-point tensor it is given is the sample
        of the call. All others are shared: they are best the same tensors in every call.
    offload: ``cpu`` keeps the samples there, and brings one back when it is needed.
    split: in how many parts of the batch a call is made, one after the other. The activations of
        one part are held at once. The function must treat samples alike, and every tensor whose
        first dimension is as long as the batch is split with it.

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
            return (*nothing, ctx.kept.product(gradients, ctx.shared), None)
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

    keep: whether its activations are kept; if not, no gradient can pass back through this record.
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


@contextmanager
def _offloaded(where: Offload) -> Iterator[None]:
    if where == "none":
        yield
        return
    with torch.autograd.graph.save_on_cpu():
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


# -------------------------------------------------------------------------- what surrounds it


class Surroundings(NamedTuple):
    """What a call depends on beside its arguments: autocast, and the state of random numbers."""

    device: torch.device
    autocast: tuple[tuple[str, bool, torch.dtype], ...]
    cpu: Tensor
    cuda: Tensor | None

    @classmethod
    def now(cls, sample: Tensor) -> Surroundings:
        device = sample.device
        kinds = sorted({"cpu", device.type})
        cast = tuple(
            (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
            for kind in kinds
        )
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(device, cast, torch.get_rng_state(), cuda)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Within, all is as it was; after it, as before."""
        with torch.random.fork_rng([] if self.cuda is None else [self.device]):
            torch.set_rng_state(self.cpu)
            if self.cuda is not None:
                torch.cuda.set_rng_state(self.cuda, self.device)
            contexts = [torch.autocast(kind, dtype, on) for kind, on, dtype in self.autocast]
            with contexts[0], contexts[-1]:
                yield
