"""What a way back costs, before it is taken, and how well it agrees with autograd's own record."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import Parameter

from adjoint.base import Adjoint, Cost, Network
from adjoint.direct import Direct
from samplers.solve import working_dtype
from samplers.tableau import Tableau


class Estimate(NamedTuple):
    """The cost of a run with its gradient, and the bytes that are kept for it.

    samples: of the samples that are kept; activations: of the network calls whose activations are
    held at once.
    """

    cost: Cost
    samples: int
    activations: int

    @property
    def bytes(self) -> int:
        return self.samples + self.activations

    def __str__(self) -> str:
        calls = self.cost
        return (
            f"{calls.forward} network calls, {calls.again} of them again on the way back with "
            f"{calls.products} vector-Jacobian products; {_size(self.samples)} of samples and "
            f"{_size(self.activations)} of activations are kept"
        )


def _size(count: float) -> str:
    if count < 1024:
        return f"{count:.0f} bytes"
    power = min(int(math.log(count, 1024)), 3)
    return f"{count / 1024**power:.1f} {('KiB', 'MiB', 'GiB')[power - 1]}"


def estimate(
    adjoint: Adjoint,
    tableau: Tableau,
    model: Network,
    x_T: Tensor,
    conditions: Sequence[Tensor] = (),
) -> Estimate:
    """What a run of the table with this model would take, without a call of the network.

    The activations are counted on tensors without data. Raises ValueError if the way back can't
    serve the sampler.
    """
    adjoint.check(tableau)
    cost = adjoint.cost(tableau)
    sample = x_T.numel() * working_dtype(x_T.dtype).itemsize
    activations = activation_bytes(model, x_T, tableau.start.t, conditions)
    return Estimate(cost, cost.samples * sample, round(cost.activations * activations))


def activation_bytes(model: Network, x: Tensor, t: Tensor, conditions: Sequence[Tensor]) -> int:
    """Bytes that autograd keeps of one network call, those of weights and inputs left out."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, Parameter) and not isinstance(tensor._base, Parameter):
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        given = [fake.from_tensor(value.detach()) for value in (x, *conditions)]
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda own: own):
            sample = given[0].to(working_dtype(x.dtype)).requires_grad_()
            held = model(sample, t.to(x).expand(len(x)), *given[1:])
    del held
    return sum(kept.values())


def verify(
    adjoint: Adjoint,
    draw: Callable[[Adjoint], Tensor],
    tensors: Sequence[Tensor],
    seed: int = 0,
) -> list[float]:
    """How far the gradients of a run deviate from those of ``Direct()``, relative to their norms.

    Args:
        draw: a way back -> the finished sample, such as
            ``lambda adjoint: sample(model, x_T[:1], ..., adjoint=adjoint)``.
        tensors: what the gradient is taken of; it is that of a random linear function of the
            sample.

    A tensor that the gradient does not reach in one of the two ways deviates by all of its norm.
    """
    one, other = (_gradients(draw(way), tensors, seed) for way in (Direct(), adjoint))
    return [_deviation(a, b) for a, b in zip(one, other, strict=True)]


def _deviation(a: Tensor, b: Tensor) -> float:
    largest = max(float(a.norm()), float(b.norm()))
    return float((a - b).norm()) / largest if largest else 0.0


def _gradients(sample: Tensor, tensors: Sequence[Tensor], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(sample.shape, generator=generator, dtype=torch.float64).to(sample)
    if not sample.requires_grad:
        return [torch.zeros_like(tensor) for tensor in tensors]
    found = torch.autograd.grad((weights * sample).sum(), list(tensors), allow_unused=True)
    pairs = zip(found, tensors, strict=True)
    return [torch.zeros_like(tensor) if g is None else g for g, tensor in pairs]
