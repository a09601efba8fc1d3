"""Gradients through unmodified diffusers pipelines."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from adjoint.autograd.evaluation import EvaluatedNetwork
from adjoint.autograd.network_state import Modules
from adjoint.autograd.recompute import Recomputed
from adjoint.autograd.torch_internals import entry_point
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
    ValueError for other adjoints, since the pipeline owns its loop, for a pipeline without a known
    network, and in its call, where gradients are enabled, for images without a gradient.
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
        recomputing, vae = not isinstance(chosen, DirectAdjoint), pipe.components.get("vae")
        if recomputing:
            settings = _checkpointing(chosen)
            for name in networks:
                stack.enter_context(_recomputed(pipe.components[name], settings))
        if vae is not None and (recomputing or _moved_to_decode(vae)):
            decode = Recomputed(EvaluatedNetwork(vae.decode, Modules.of([vae])))
            stack.enter_context(_replaced(vae, "decode", decode))
        if hasattr(pipe, "run_safety_checker"):
            judged = _judged(pipe.run_safety_checker)
            stack.enter_context(_replaced(pipe, "run_safety_checker", judged))
        if getattr(pipe, "watermark", None) is not None:
            applied = _watermarked(pipe.watermark.apply_watermark)
            stack.enter_context(_replaced(pipe.watermark, "apply_watermark", applied))

        def generate(*args: Any, **kwargs: Any) -> Any:
            _check_output(call, pipe, *args, **kwargs)
            return call(pipe, *args, **kwargs)

        yield generate


def _check_output(call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Raise ValueError for images that would have no gradient, where one is recorded."""
    given = inspect.signature(call).bind(*args, **kwargs)
    given.apply_defaults()
    kind = given.arguments.get("output_type")
    if kind in ("pil", "np") and torch.is_grad_enabled():
        raise ValueError(
            f"Images of output_type={kind!r} have no gradient; pass output_type='pt' or 'latent', "
            "or call the pipeline under torch.no_grad()."
        )


def _checkpointing(adjoint: AbstractAdjoint) -> CheckpointAdjoint:
    if not isinstance(adjoint, CheckpointAdjoint) or adjoint.keep:
        raise ValueError(
            f"{adjoint} cannot differentiate a pipeline, which owns its loop; take "
            "CheckpointAdjoint() without keep, or DirectAdjoint()."
        )
    return adjoint


def _moved_to_decode(vae: Any) -> bool:
    """Whether the pipeline moves it to float32 for the decoding, and back before the backward
    pass, which then does not fit the saved activations."""
    return vae.dtype == torch.float16 and bool(getattr(vae.config, "force_upcast", False))


def _judged(check: Callable[..., Any]) -> Callable[..., Any]:
    """A safety checker that judges values: images that it leaves as they are keep their graph."""

    def run(image: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(image, Tensor):
            return check(image, *args, **kwargs)
        with torch.no_grad():
            checked, *verdicts = check(image.detach().clone(), *args, **kwargs)
        safe = (checked == image).flatten(1).all(dim=1).reshape(-1, *[1] * (image.ndim - 1))
        return (torch.where(safe, image, checked), *verdicts)

    return run


def _watermarked(apply: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A watermark that refuses images with a gradient, of which it would keep nothing."""

    def run(images: Tensor) -> Tensor:
        if images.requires_grad:
            raise ValueError(
                "The pipeline adds a watermark, which has no gradient; construct it with "
                "add_watermarker=False, or pass output_type='latent'."
            )
        return apply(images)

    return run


def _recomputed(network: nn.Module, settings: CheckpointAdjoint) -> AbstractContextManager[None]:
    """Recompute the evaluations of this module within the block."""
    entry = entry_point(network)
    function = EvaluatedNetwork(getattr(network, entry), Modules.of([network]), settings.split)
    return _replaced(network, entry, Recomputed(function, settings.offload))


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
