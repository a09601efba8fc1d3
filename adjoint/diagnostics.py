"""What a gradient will cost, and how far an adjoint's gradient is from plain backpropagation's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Unpack

import torch
from torch import Tensor

from adjoint.autograd.torch_internals import FakeTensorMode, is_parameter, storage_key
from adjoint.base import AbstractAdjoint, AdjointCost
from adjoint.direct import DirectAdjoint
from samplers.denoiser import Denoiser
from samplers.sampling import RunSettings, sample
from samplers.solve import working_dtype
from samplers.tableau import Tableau


class CostEstimate(NamedTuple):
    """The cost of a run with its gradient, and the bytes that are saved for backward.

    Attributes:
        cost: network evaluations and vector-Jacobian products.
        samples: bytes of saved samples.
        activations: bytes of the activations that are held at once.
    """

    cost: AdjointCost
    samples: int
    activations: int

    @property
    def bytes(self) -> int:
        """All that is saved for backward."""
        return self.samples + self.activations

    def __str__(self) -> str:
        cost = self.cost
        return (
            f"{cost.forward} network evaluations, {cost.recomputed} of them recomputed in the "
            f"backward pass, and {cost.vjps} vector-Jacobian products; {_size(self.samples)} of "
            f"samples and {_size(self.activations)} of activations are held in memory"
        )


def _size(count: float) -> str:
    if count < 1024:
        return f"{count:.0f} bytes"
    power = min(int(math.log(count, 1024)), 3)
    return f"{count / 1024**power:.1f} {('KiB', 'MiB', 'GiB')[power - 1]}"


def estimate_cost(
    model: Denoiser,
    x_T: Tensor,
    adjoint: AbstractAdjoint,
    tableau: Tableau,
    conditions: Mapping[str, Any] | None = None,
) -> CostEstimate:
    """What a run of the tableau from ``x_T`` and its gradient would cost.

    Args:
        model: its network is evaluated once, on tensors without data, so it computes nothing.
        x_T: initial noise [B, ...].
        adjoint: how the gradient is computed.
        tableau: of the sampler, such as ``get_sampler("dpmpp-2m").tableau(grid)``.
        conditions: given to the model by name.

    Raises ValueError if the adjoint cannot differentiate the sampler.
    """
    adjoint.check(tableau)
    cost = adjoint.cost(tableau)
    sample_bytes = x_T.numel() * working_dtype(x_T.dtype).itemsize
    activations = activation_bytes(model, x_T, tableau.start.t, conditions or {})
    return CostEstimate(cost, cost.samples * sample_bytes, round(cost.activations * activations))


def activation_bytes(model: Denoiser, x: Tensor, t: Tensor, conditions: Mapping[str, Any]) -> int:
    """Bytes that autograd saves in one network evaluation, without those of weights and inputs."""
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not is_parameter(tensor):
            saved[storage_key(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with FakeTensorMode(allow_non_fake_inputs=True) as fake:

        def without_data(value: Any) -> Any:
            return fake.from_tensor(value.detach()) if isinstance(value, Tensor) else value

        given = {name: without_data(value) for name, value in conditions.items()}
        inputs = without_data(x)
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda own: own):
            inputs = inputs.to(working_dtype(x.dtype)).requires_grad_()
            output = model(inputs, t.to(x).expand(len(x)), **given)
    del output
    return sum(saved.values())


def verify(
    model: Denoiser,
    x_T: Tensor,
    tensors: Sequence[Tensor],
    *,
    probe_seed: int = 0,
    **run: Unpack[RunSettings],
) -> list[float]:
    """The relative deviation of an adjoint's gradients from those of plain backpropagation.

    Args:
        model: as for :func:`samplers.sample`.
        x_T: initial noise; few samples are enough.
        tensors: the inputs of the gradient, which is that of a random linear function of x_0.
        probe_seed: of that function.
        run: keywords of :func:`samplers.sample`: the ``adjoint``, ``sampler``, ``steps`` and so on.

    Returns the deviation for each tensor, relative to the larger norm: 1 if one of the two
    gradients does not reach it.
    """
    reference: RunSettings = {**run, "adjoint": DirectAdjoint()}
    one, other = (
        _gradients(sample(model, x_T, **settings), tensors, probe_seed)
        for settings in (reference, run)
    )
    return [_deviation(a, b) for a, b in zip(one, other, strict=True)]


def _deviation(a: Tensor, b: Tensor) -> float:
    largest = max(float(a.norm()), float(b.norm()))
    return float((a - b).norm()) / largest if largest else 0.0


def _gradients(finished: Tensor, tensors: Sequence[Tensor], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(finished.shape, generator=generator, dtype=torch.float64).to(finished)
    if not finished.requires_grad:
        return [torch.zeros_like(tensor) for tensor in tensors]
    found = torch.autograd.grad((weights * finished).sum(), list(tensors), allow_unused=True)
    pairs = zip(found, tensors, strict=True)
    return [torch.zeros_like(tensor) if g is None else g for g, tensor in pairs]
