r"""The phi functions against their series in rational arithmetic, and quadrature by their moments.

.. math:: \varphi_k(z) = \sum_{j \ge 0} \frac{z^j}{(j + k)!}
"""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from samplers.phi import lagrange_weights, phi

ARGUMENTS = [0.0, 1e-300, 1e-12, 1e-5, 1e-3, 0.1, 0.5, 1.0, 1.9, 1.9999, 2.0, 2.1, 5.0, 17.3, 50.0]


def series(k: int, z: float) -> float:
    """phi_k(z), exact but for the last rounding."""
    exact = Fraction(z)
    term, total = Fraction(1, math.factorial(k)), Fraction(0)
    for j in range(1, 400):
        total += term
        term = (term * exact / (j + k)).limit_denominator(10**90)
        if term == 0:
            break
    return float(total)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_phi_of_many_numbers_is_phi_of_each(k: int) -> None:
    z = torch.tensor([*ARGUMENTS, *(-z for z in ARGUMENTS)], dtype=torch.float64).reshape(6, -1)
    for numbers in (z, z[0], z[-1]):
        each = torch.stack([phi(k, one) for one in numbers.flatten()]).reshape(numbers.shape)
        torch.testing.assert_close(phi(k, numbers), each, rtol=1e-15, atol=0)
    assert bool(torch.func.grad(lambda z: phi(k, z).sum())(z).isfinite().all())


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("sign", [1, -1])
def test_phi_is_exact_to_rounding(k: int, sign: int) -> None:
    for size in ARGUMENTS:
        z = sign * size
        assert float(phi(k, number(z))) == pytest.approx(series(k, z), rel=1e-14, abs=0), z


def test_the_series_itself() -> None:
    assert series(1, 1.0) == pytest.approx(math.e - 1, rel=1e-15)
    assert series(1, -50.0) == pytest.approx(-math.expm1(-50.0) / 50, rel=1e-15)
    assert series(2, 0.0) == 0.5


@pytest.mark.parametrize("z", [-3.0, -1e-4, 0.0, 0.7, 4.0])
@pytest.mark.parametrize(
    "nodes", [[0.0], [0.0, -1.0], [1.0, 0.0, -0.8], [0.0, -1.3, -1.9, -3.2], [1.0, 0.5, 0.0]]
)
def test_lagrange_weights_are_exact_on_polynomials(nodes: list[float], z: float) -> None:
    weights = lagrange_weights([number(node) for node in nodes], number(z))
    for power in range(len(nodes)):
        found = sum(float(w) * node**power for w, node in zip(weights, nodes, strict=True))
        assert found == pytest.approx(math.factorial(power) * series(power + 1, z), rel=1e-11)


def test_lagrange_weights_are_differentiable() -> None:
    z = number(-0.6).requires_grad_()
    node = number(-1.2).requires_grad_()

    def first(node: Tensor, z: Tensor) -> Tensor:
        return lagrange_weights([number(0.0), node], z)[1]

    assert torch.autograd.gradcheck(first, (node, z))
