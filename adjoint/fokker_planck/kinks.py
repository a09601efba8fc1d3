"""Kinks of a function, where its first derivative jumps, as that of ``relu`` does.

Its second derivative there is a delta distribution, which automatic differentiation does not see:
it finds the values on both sides, which are zero for ``relu``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from adjoint.autograd.torch_internals import TorchDispatchMode
from adjoint.autograd.used_tensors import storage_of, strided

_KINKED = {
    "relu", "relu6", "leaky_relu", "prelu", "rrelu", "selu", "threshold",
    "hardtanh", "hardswish", "hardsigmoid", "hardshrink", "softshrink",
    "abs", "clamp", "clamp_min", "clamp_max", "clip",
    "maximum", "minimum", "fmax", "fmin", "max", "min", "amax", "amin", "aminmax", "cummax",
    "cummin",
    "max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "fractional_max_pool2d", "fractional_max_pool3d",
    "sort", "argsort", "topk", "kthvalue", "median", "nanmedian", "mode", "argmax", "argmin",
    "gt", "ge", "lt", "le", "sign", "sgn", "heaviside", "round", "floor", "ceil", "trunc", "fix",
    "frac", "fmod", "remainder", "floor_divide",
    "bucketize", "searchsorted",
}  # fmt: skip
"""Operations of ATen with a kink or a jump. Comparisons are among them, since ``where(x > 0, x,
0)`` is ``relu``."""


UNNAMED = "unnamed"
"""A kink of no operation in this list, found by :func:`has_hidden_kink`."""

LineFunction = Callable[[float], tuple[Tensor, Tensor]]
"""Values at a distance from each point along a line through it, and their derivatives there."""


def has_hidden_kink(line: LineFunction, step: float) -> bool:
    """Whether values have kinks within the step that their derivatives do not show.

    The trapezoidal rule of the derivatives misses the difference of values by O(h^3) if they are
    smooth, but a jump of the derivative by O(h), and many of random sign by O(h^1.5) or O(h^2).
    Here h is halved once. What remains at a much shorter step is rounding.
    """
    whole, half, rounding = (_missed(line, step * part) for part in (1, 1 / 2, 1 / 1024))
    return not half <= max(whole / 2**2.5, 16 * rounding)  # nor do NaNs show it


@torch.no_grad()
def _missed(line: LineFunction, h: float) -> float:
    """The largest error of the trapezoidal rule over [-h, h], and at least the unit of its sum."""
    (ahead, slope_ahead), (behind, slope_behind) = line(h), line(-h)
    missed = ahead - behind - h * (slope_ahead + slope_behind)
    size = torch.stack([ahead.abs().max(), behind.abs().max()]).max()
    return float(torch.maximum(missed.abs().max(), torch.finfo(size.dtype).eps * size))


def find_kinks(function: Callable[..., Tensor], z: Tensor, *others: Tensor) -> tuple[str, ...]:
    """The names of the operations between z and ``function(z, *others)`` that have a kink.

    An operation counts if its kink lies among the values that it is given: a ``clamp`` that leaves
    all of them unchanged is smooth. Operations are seen wherever they are called from, but not
    inside custom kernels.
    """
    point = z.detach().clone()
    with _Watch(point) as watch:
        value = function(point, *others)
    return tuple(sorted(watch.behind([value])))


class _Watch(TorchDispatchMode):
    """Records for every storage that depends on z the kinks on the way to it."""

    def __init__(self, z: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: dict[StorageWeakRef, frozenset[str]] = {storage_of(z): frozenset()}

    def behind(self, values: Iterable[Any]) -> frozenset[str]:
        known = (self.found.get(storage_of(each), frozenset()) for each in strided(values))
        return frozenset().union(*known)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        inputs = list(strided([args, given]))
        if not any(storage_of(each) in self.found for each in inputs):
            return func(*args, **given)
        name = _name(func)
        kinked = _has_kink(name, args)
        # It may be changed in place, and a number may come first.
        before = args[0].clone() if kinked and isinstance(args[0], Tensor) else torch.empty(0)
        result = func(*args, **given)
        found = self.behind(inputs)
        if kinked and _shows(result, before):
            found |= {name}
        self.found.update((storage_of(each), found) for each in strided(result))
        return result


def _name(func: Any) -> str:
    """As users know it: ``prelu`` for ``_prelu_kernel``, ``threshold`` for its derivative."""
    name: str = func.overloadpacket.__name__.strip("_")
    for ending in ("_backward", "_with_indices", "_with_noise", "_kernel"):
        name = name.removesuffix(ending)
    return name


def _has_kink(name: str, args: Sequence[Any]) -> bool:
    match name, args:
        case "elu", [Tensor(), alpha, _, input_scale, *_]:  # of selu; that of celu is smooth
            return bool(alpha * input_scale != 1)
        case "elu", [Tensor(), alpha, *_]:
            return bool(alpha != 1)
        case "transformer_encoder_layer_fwd", _:  # one kernel for the whole layer
            return not args[7]  # which is whether it has gelu
    return name in _KINKED


def _shows(result: Any, given: Tensor) -> bool:
    """Whether the values lie on both sides of the kink."""
    match result:
        case Tensor(dtype=torch.bool):
            return bool(result.any()) and not bool(result.all())
        case Tensor(dtype=given.dtype):
            return not torch.equal(result, given)
    return True
