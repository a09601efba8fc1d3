"""Layer 1. Vector-Jacobian products of a network, under ``torch.no_grad`` too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def recorded(network: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The network, which raises ValueError if autograd does not record it."""

    def call(x: Tensor, *given: Any, **conditions: Any) -> Tensor:
        output = network(x, *given, **conditions)
        if not output.requires_grad:
            raise ValueError(
                "The network's gradient is needed here, but its output was not recorded as a "
                "function of x; give the network without torch.no_grad() and detach() in it (the "
                "call as a whole may stand under torch.no_grad())."
            )
        return output

    return call


def value_and_pullback(
    function: Callable[[Tensor], Tensor], x: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """``function(x)``, and the product of a cotangent with its Jacobian at x.

    This works under ``torch.no_grad`` too. Where the caller records a graph, the value and the
    product are part of it. Raises ValueError under ``torch.inference_mode``, where nothing can be
    recorded.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "The network's gradient is needed here, which torch.inference_mode() can't give; use "
            "torch.no_grad()."
        )
    if torch.is_grad_enabled():
        value, products = torch.func.vjp(function, x)[:2]
        return value, lambda cotangent: products(cotangent)[0]
    # Plain autograd, because gradient checkpointing does not support torch.func.
    with torch.enable_grad():
        at = x.detach().requires_grad_()
        value = function(at)

    def pull(cotangent: Tensor) -> Tensor:
        (product,) = torch.autograd.grad(value, at, cotangent, retain_graph=True)
        return product

    return value.detach(), pull
