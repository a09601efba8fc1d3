"""Gradients through unmodified diffusers pipelines."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from adjoint.autograd.recompute import Recomputed
from adjoint.base import AbstractAdjoint
from adjoint.checkpoint import CheckpointAdjoint
from adjoint.direct import DirectAdjoint

NETWORKS = ("unet", "transformer", "transformer_2")
"""The components of a pipeline that are evaluated at every step."""


@contextmanager
def differentiable(
    pipe: Any, adjoint: AbstractAdjoint | None = None
) -> Iterator[Callable[..., Any]]:
    """The pipeline as a differentiable function, within a ``with`` block::

        with differentiable(pipe) as generate:
            image = generate(prompt_embeds=e, latents=z, output_type="pt").images
        loss(image).backward()

    It takes the arguments of the pipeline and returns the same images. Gradients reach latents,
    embeddings and the weights of the network. Pass ``output_type`` "pt" or "latent": NumPy arrays
    and PIL images have no gradient, and neither have clipped pixels.

    Args:
        adjoint: ``CheckpointAdjoint()`` (the default), which also recomputes the VAE's decoding, or
            ``DirectAdjoint()``.

    The pipeline is unchanged after the block, and the backward pass may come later. Raises
    ValueError for other adjoints, since the pipeline owns its loop, and for a pipeline without a
    known network.
    """
    chosen = CheckpointAdjoint() if adjoint is None else adjoint
    networks = [name for name in NETWORKS if isinstance(pipe.components.get(name), nn.Module)]
    if not networks:
        raise ValueError(
            f"{type(pipe).__name__} has none of the components {', '.join(NETWORKS)}, so its "
            "network is not known; pass a pipeline with one of them."
        )
    # diffusers decorates the call of a pipeline with torch.no_grad.
    call = inspect.unwrap(type(pipe).__call__)
    with ExitStack() as stack:
        if not isinstance(chosen, DirectAdjoint):
            settings = _checkpointing(chosen)
            for name in networks:
                network = pipe.components[name]
                recomputed = Recomputed(network.forward, settings.offload, settings.split)
                stack.enter_context(_replaced(network, "forward", recomputed))
            vae = pipe.components.get("vae")
            if vae is not None:
                stack.enter_context(_replaced(vae, "decode", Recomputed(vae.decode)))
        yield lambda *args, **kwargs: call(pipe, *args, **kwargs)


def _checkpointing(adjoint: AbstractAdjoint) -> CheckpointAdjoint:
    if not isinstance(adjoint, CheckpointAdjoint) or adjoint.keep:
        raise ValueError(
            f"{adjoint} cannot differentiate a pipeline, which owns its loop; take "
            "CheckpointAdjoint() without keep, or DirectAdjoint()."
        )
    return adjoint


@contextmanager
def _replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    """Set an attribute of this object within the block."""
    own = vars(owner)
    before = own.get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)
