r"""What is optimised, and the module that holds it.

Whatever it is, it ends up as parameters of one module, of which those that require a gradient are
learned and all others stay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Weights:
    """The weights of the network.

    Attributes:
        only: of these modules alone, named from the network's top; all if empty.
    """

    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoRA:
    r"""An adapter of low rank beside the weights of some layers, ``W + B A`` (Hu et al. 2022,
    https://arxiv.org/abs/2106.09685); it needs the package peft.

    Attributes:
        rank: of B A; it is not scaled.
        modules: the last names of the layers that get one.
    """

    rank: int = 4
    modules: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"The rank is {self.rank}; it must be at least 1.")
        if not self.modules:
            raise ValueError("The list of modules is empty; name layers that get an adapter.")


@dataclass(frozen=True)
class Embedding:
    """The embedding of what is asked for: of classes, or of prompts.

    Attributes:
        shared: one change for all classes that are asked for, such as an effect that any of them
            may have, instead of one for each.
    """

    shared: bool = False


@dataclass(frozen=True)
class Noise:
    r"""The starting noise of a number of images. It moves on the sphere on which it began.

    Attributes:
        count: how many images.
        reach: how far it may go from where it began, as an angle in radians.
        seed: of the first image; the others follow.
    """

    count: int = 8
    reach: float = math.pi
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"The count is {self.count}; it must be at least 1.")
        if not 0 < self.reach <= math.pi:
            raise ValueError(f"The reach is {self.reach}; it is an angle above 0, and pi at most.")


Optimised = Weights | LoRA | Embedding | Noise


class Part(nn.Module):
    """A network, with starting noise or an embedding of prompts beside it if these are learned."""

    def __init__(
        self,
        network: nn.Module,
        noise: LearnedNoise | None = None,
        embedding: nn.Parameter | None = None,
    ) -> None:
        super().__init__()
        self.network, self.noise, self.embedding = network, noise, embedding


# ------------------------------------------------------------------------------------- weights


def train_weights(network: nn.Module, settings: Weights) -> None:
    """Have the weights learned, all or those of some modules; ValueError for an unknown module."""
    network.requires_grad_(False)
    for name in settings.only or ("",):
        try:
            module = network.get_submodule(name)
        except AttributeError as error:
            known = ", ".join(child for child, _ in network.named_children())
            raise ValueError(f"The network has no module {name!r}; it has {known}.") from error
        module.requires_grad_()
    if settings.only:
        for module in network.modules():
            if isinstance(module, nn.GroupNorm):
                module.register_forward_pre_hook(_contiguous)


def _contiguous(module: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
    """Keeps PyTorch 2.13 alive: on a CPU the gradient of a group norm's weights crashes if its
    input needs none and has its channels last."""
    return (given[0].contiguous(),)


# ------------------------------------------------------------------------------------- adapters


def add_adapter(network: nn.Module, settings: LoRA, seed: int) -> None:
    """Put an adapter into the network, whose weights stay; ValueError if no layer is named so."""
    peft = _peft()
    network.requires_grad_(False)
    config = peft.LoraConfig(
        r=settings.rank, lora_alpha=settings.rank, target_modules=list(settings.modules)
    )
    # Its first numbers are drawn from the global generator.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            peft.inject_adapter_in_model(config, network)
        except ValueError as error:
            kinds = (nn.Linear, nn.Conv2d)
            found = [name for name, m in network.named_modules() if isinstance(m, kinds)]
            raise ValueError(
                f"No layer of the network is named {' or '.join(settings.modules)}; it has "
                f"{', '.join(found[:8])} and more."
            ) from error


def adapter_state(network: nn.Module) -> dict[str, Tensor]:
    """The numbers of the adapter, by peft's names."""
    state: dict[str, Tensor] = _peft().get_peft_model_state_dict(network)
    return state


def merge_adapter(network: nn.Module) -> None:
    """Add the adapter to the weights, and take it away."""
    layers = _peft().tuners.lora.LoraLayer
    for name, layer in list(network.named_modules()):
        if isinstance(layer, layers):
            layer.merge()
            _replace(network, name, layer.get_base_layer())


def _peft() -> Any:
    try:
        import peft
    except ModuleNotFoundError as error:
        raise ValueError(
            "Adapters need the package peft; install it with pip install 'retrograde[lora]'."
        ) from error
    return peft


# ---------------------------------------------------------------------------- embeddings of classes


class LearnedClasses(nn.Module):
    """An embedding of classes that stays, and a change of it for some classes that is learned."""

    rows: Tensor

    def __init__(self, table: nn.Embedding, classes: tuple[int, ...], shared: bool) -> None:
        super().__init__()
        self.table = table.requires_grad_(False)
        self.change = nn.Parameter(
            table.weight.new_zeros(1 if shared else len(classes), table.embedding_dim)
        )
        # The row of the change for each class; the last is that of classes without one.
        rows = torch.full((table.num_embeddings,), len(self.change), device=table.weight.device)
        rows[list(classes)] = 0 if shared else torch.arange(len(classes), device=rows.device)
        self.register_buffer("rows", rows)

    @property
    def weight(self) -> Tensor:
        """The embedding of each class."""
        changes = torch.cat([self.change, torch.zeros_like(self.change[:1])])
        return self.table.weight + changes[self.rows]

    def forward(self, labels: Tensor) -> Tensor:
        return nn.functional.embedding(labels, self.weight)

    def folded(self) -> nn.Embedding:
        """A plain embedding that is the same."""
        table: nn.Embedding = nn.Embedding.from_pretrained(self.weight.detach())
        return table


def learn_classes(network: nn.Module, classes: tuple[int, ...], settings: Embedding) -> None:
    """Have a change of the embedding of classes learned; ValueError if the network has none."""
    network.requires_grad_(False)
    table = getattr(network, "class_embedding", None)
    if not isinstance(table, nn.Embedding):
        raise ValueError(
            f"This network, {type(network).__name__}, has no table of class embeddings to learn; "
            "optimise its weights, an adapter or the noise."
        )
    network.class_embedding = LearnedClasses(table, classes, settings.shared)


def fold_classes(network: nn.Module) -> None:
    """Put a plain embedding in the place of one that was learned."""
    for name, module in list(network.named_modules()):
        if isinstance(module, LearnedClasses):
            _replace(network, name, module.folded())


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, module)


# --------------------------------------------------------------------------------------- noise


class LearnedNoise(nn.Module):
    r"""Starting noise [N, ...] that is learned.

    Each is ``|n_0| (cos(a) n_0 / |n_0| + sin(a) u)``, where n_0 is where it began, u a unit vector
    at right angles to it, and the angle a at most ``reach``.
    """

    start: Tensor

    def __init__(self, start: Tensor, reach: float) -> None:
        super().__init__()
        self.register_buffer("start", start)
        self.value = nn.Parameter(start.clone())
        self.reach = reach

    def forward(self, index: Tensor) -> Tensor:
        """The noise of these images."""
        return on_cap(self.value[index], self.start[index], self.reach)


def on_cap(x: Tensor, centre: Tensor, reach: float) -> Tensor:
    """Where the rays to x [N, ...] meet a sphere about 0, or the nearest points within reach.

    The sphere of each is that of its ``centre``, and within reach is what is seen at no more than
    this angle from there.
    """
    flat, middle = x.flatten(1), centre.flatten(1)
    radius = middle.norm(dim=1, keepdim=True)
    towards = middle / radius
    along = (flat * towards).sum(dim=1, keepdim=True)
    across = flat - along * towards
    length = across.norm(dim=1, keepdim=True)
    inside = torch.atan2(length.detach(), along.detach()) <= reach
    ray = flat / flat.norm(dim=1, keepdim=True)
    # Where the length is 0 the point is the centre, which is inside.
    border = math.cos(reach) * towards + math.sin(reach) * across / length.clamp(min=1e-30)
    found: Tensor = radius * torch.where(inside, ray, border)
    return found.reshape(x.shape)
