"""Gradients through diffusers pipelines, as they are."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from adjoint.base import Adjoint
from adjoint.checkpoint import Checkpoint
from adjoint.direct import Direct
from adjoint.replay import Replayed

NETWORKS = ("unet", "transformer", "transformer_2")
"""The components of a pipeline that are called once a step."""


@contextmanager
def differentiable(pipe: Any, adjoint: Adjoint | None = None) -> Iterator[Callable[..., Any]]:
    """The pipeline as a function through which gradients pass, within a ``with`` block.

        with differentiable(pipe) as draw:
            image = draw(prompt_embeds=e, latents=z, output_type="pt").images
        loss(image).backward()

    It takes the arguments of the pipeline, and draws the same images. Gradients reach latents,
    embeddings and the weights of the network. Ask for ``output_type`` "pt" or "latent": arrays and
    pictures have no gradient, and neither has a pixel that was clipped.

    Args:
        adjoint: ``Checkpoint()`` (the default), which also decodes by a call that is made again
            backwards, or ``Direct()``.

    The pipeline is what it was after the block; gradients may pass back later. Raises ValueError
    for other ways back, since the pipeline owns the loop, and for a pipeline without a network
    that is known here.
    """
    chosen = Checkpoint() if adjoint is None else adjoint
    networks = [name for name in NETWORKS if isinstance(pipe.components.get(name), nn.Module)]
    if not networks:
        raise ValueError(
            f"{type(pipe).__name__} has none of the components {', '.join(NETWORKS)}; its network "
            "is not known here."
        )
    # diffusers wraps the call of a pipeline in torch.no_grad, which keeps what it wraps.
    call = inspect.unwrap(type(pipe).__call__)
    with ExitStack() as stack:
        if not isinstance(chosen, Direct):
            split = _settings(chosen)
            for name in networks:
                replayed = Replayed(pipe.components[name].forward, split.offload, split.split)
                stack.enter_context(_replaced(pipe.components[name], "forward", replayed))
            vae = pipe.components.get("vae")
            if vae is not None:
                stack.enter_context(_replaced(vae, "decode", Replayed(vae.decode)))
        yield lambda *args, **kwargs: call(pipe, *args, **kwargs)


def _settings(adjoint: Adjoint) -> Checkpoint:
    if not isinstance(adjoint, Checkpoint) or adjoint.keep:
        raise ValueError(
            f"A pipeline owns its loop, so only its network calls can be replayed: {adjoint} can't "
            "serve it; take Checkpoint() without keep, or Direct()."
        )
    return adjoint


@contextmanager
def _replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    """Set an attribute of this object, and take it away again."""
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
