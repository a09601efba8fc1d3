r"""Layer 2. The phi functions of exponential integrators, without cancellation.

.. math:: \varphi_k(z) = \int_0^1 e^{(1 - \theta) z} \, \frac{\theta^{k-1}}{(k-1)!} \, d\theta,
          \qquad \varphi_{k+1}(z) = \frac{\varphi_k(z) - 1/k!}{z}

(Hochbruck and Ostermann 2010, *Exponential integrators*, section 2).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

_NODES, _WEIGHTS = (torch.from_numpy(a) / 2 for a in np.polynomial.legendre.leggauss(16))
_THETA = _NODES + 0.5


def phi(k: int, z: Tensor) -> Tensor:
    """phi_k(z) for k >= 1 and float64 numbers z of any shape, to a few units in the last place."""
    # The recursion cancels for small z; 16 Gauss points are exact to rounding there.
    small = z.detach().abs() < 2
    if bool(small.all()):
        return _by_quadrature(k, z)
    if not bool(small.any()):
        return _by_recursion(k, z)
    # Each formula gets its own arguments only, so that neither makes the other's gradient NaN.
    few, many = torch.where(small, z, 1.0), torch.where(small, 2.0, z)
    return torch.where(small, _by_quadrature(k, few), _by_recursion(k, many))


def _by_quadrature(k: int, z: Tensor) -> Tensor:
    weight = _WEIGHTS * _THETA ** (k - 1) / math.factorial(k - 1)
    return torch.sum(weight * torch.exp((1 - _THETA) * z.unsqueeze(-1)), dim=-1)


def _by_recursion(k: int, z: Tensor) -> Tensor:
    value = torch.expm1(z) / z
    for j in range(1, k):
        value = (value - 1 / math.factorial(j)) / z
    return value


def lagrange_weights(nodes: list[Tensor], z: Tensor) -> list[Tensor]:
    r"""Weights w with ``sum_j w_j f(theta_j) = int_0^1 e^{(1-theta) z} p(theta) dtheta``.

    p is the polynomial through the values f at the nodes theta_j. These are the weights of
    exponential Adams formulas of any order, explicit (all nodes <= 0) or implicit (a node at 1).
    """
    theta = torch.stack([torch.as_tensor(node, dtype=torch.float64) for node in nodes])
    powers = torch.arange(len(nodes), dtype=torch.float64)
    moments = torch.stack([math.factorial(j) * phi(j + 1, z) for j in range(len(nodes))])
    return list(torch.linalg.solve(theta ** powers[:, None], moments))
