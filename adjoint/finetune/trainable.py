r"""What is optimised, and the module that holds it.

Whatever it is, it becomes parameters of one module, of which those that require a gradient are
trained and all others are frozen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class OptimiseWeights:
    """Train the weights of the network.

    Attributes:
        modules: only those of these modules, named from the network's root; all if empty.
    """

    modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class OptimiseLoRA:
    r"""Train a LoRA adapter of some layers, ``W + B A`` (Hu et al. 2022,
    https://arxiv.org/abs/2106.09685); needs the package peft.

    Attributes:
        rank: of B A, which is not scaled.
        target_modules: the last names of the layers that get an adapter, as in peft.
    """

    rank: int = 4
    target_modules: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"The rank is {self.rank}; it must be at least 1.")
        if not self.target_modules:
            raise ValueError("The list of target_modules is empty; name layers for the adapter.")


@dataclass(frozen=True)
class OptimiseEmbedding:
    """Train the embedding of the condition: of classes, or of prompts.

    Attributes:
        shared: one change for all classes that are sampled, such as an effect that any of them may
            have, instead of one for each.
    """

    shared: bool = False


@dataclass(frozen=True)
class OptimiseNoise:
    r"""Optimise the initial noise of a number of images, on the sphere of its own norm.

    Attributes:
        num_images: how many.
        max_angle: how far it may move from where it started, in radians.
        seed: of the first image; the others follow.
    """

    num_images: int = 8
    max_angle: float = math.pi
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_images < 1:
            raise ValueError(f"num_images is {self.num_images}; it must be at least 1.")
        if not 0 < self.max_angle <= math.pi:
            raise ValueError(
                f"max_angle is {self.max_angle}; it must be an angle above 0 and at most pi."
            )


Optimised = OptimiseWeights | OptimiseLoRA | OptimiseEmbedding | OptimiseNoise


class Trainable(nn.Module):
    """A network, with the initial noise or prompt embeddings beside it if these are optimised."""

    def __init__(
        self,
        network: nn.Module,
        noise: LearnedNoise | None = None,
        embedding: nn.Parameter | None = None,
    ) -> None:
        super().__init__()
        self.network, self.noise, self.embedding = network, noise, embedding


# ------------------------------------------------------------------------------------- weights


def train_weights(network: nn.Module, settings: OptimiseWeights) -> None:
    """Unfreeze the weights, all or those of some modules; ValueError for an unknown module."""
    network.requires_grad_(False)
    for name in settings.modules or ("",):
        try:
            module = network.get_submodule(name)
        except AttributeError as error:
            known = ", ".join(child for child, _ in network.named_children())
            raise ValueError(f"The network has no module {name!r}; it has {known}.") from error
        module.requires_grad_()
    if settings.modules:
        for module in network.modules():
            if isinstance(module, nn.GroupNorm):
                module.register_forward_pre_hook(_contiguous)


def _contiguous(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """Works around a crash of PyTorch 2.13 on a CPU: the gradient of a group norm's weights, if its
    input needs no gradient and is in channels-last format."""
    return (inputs[0].contiguous(),)


# ------------------------------------------------------------------------------------- adapters


def add_adapter(network: nn.Module, settings: OptimiseLoRA, seed: int) -> None:
    """Add an adapter to the network and freeze its weights; ValueError if no layer is named so."""
    peft = _peft()
    network.requires_grad_(False)
    config = peft.LoraConfig(
        r=settings.rank, lora_alpha=settings.rank, target_modules=list(settings.target_modules)
    )
    # peft initialises from the global generator.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            peft.inject_adapter_in_model(config, network)
        except ValueError as error:
            kinds = (nn.Linear, nn.Conv2d)
            found = [name for name, m in network.named_modules() if isinstance(m, kinds)]
            raise ValueError(
                f"No layer of the network is named {' or '.join(settings.target_modules)}; it "
                f"has {', '.join(found[:8])} and more."
            ) from error


def adapter_state(network: nn.Module) -> dict[str, Tensor]:
    """The weights of the adapter, by peft's names."""
    state: dict[str, Tensor] = _peft().get_peft_model_state_dict(network)
    return state


def merge_adapter(network: nn.Module) -> None:
    """Merge the adapter into the weights, and remove it."""
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
    """A frozen embedding of classes, and a trained change of it for some classes."""

    rows: Tensor

    def __init__(self, table: nn.Embedding, classes: tuple[int, ...], shared: bool) -> None:
        super().__init__()
        self.table = table.requires_grad_(False)
        self.change = nn.Parameter(
            table.weight.new_zeros(1 if shared else len(classes), table.embedding_dim)
        )
        # The row of each class in the change; the last is for classes without one.
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
        """The equivalent plain embedding."""
        table: nn.Embedding = nn.Embedding.from_pretrained(self.weight.detach())
        return table


def learn_classes(
    network: nn.Module, classes: tuple[int, ...], settings: OptimiseEmbedding
) -> None:
    """Train a change of the embedding of classes alone; ValueError if the network has none."""
    network.requires_grad_(False)
    table = getattr(network, "class_embedding", None)
    if not isinstance(table, nn.Embedding):
        raise ValueError(
            f"This network, {type(network).__name__}, has no embedding table of classes; optimise "
            "its weights, an adapter or the noise."
        )
    network.class_embedding = LearnedClasses(table, classes, settings.shared)


def fold_classes(network: nn.Module) -> None:
    """Replace a trained embedding by the equivalent plain one."""
    for name, module in list(network.named_modules()):
        if isinstance(module, LearnedClasses):
            _replace(network, name, module.folded())


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, module)


# --------------------------------------------------------------------------------------- noise


class LearnedNoise(nn.Module):
    r"""Trained initial noise [N, ...].

    Each is ``|n_0| (cos(a) n_0 / |n_0| + sin(a) u)``, where n_0 is where it started, u a unit
    vector orthogonal to it, and the angle a at most ``max_angle``.
    """

    start: Tensor

    def __init__(self, start: Tensor, max_angle: float) -> None:
        super().__init__()
        self.register_buffer("start", start)
        self.value = nn.Parameter(start.clone())
        self.max_angle = max_angle

    def forward(self, index: Tensor) -> Tensor:
        """The noise of these images."""
        return on_cap(self.value[index], self.start[index], self.max_angle)


def on_cap(x: Tensor, centre: Tensor, max_angle: float) -> Tensor:
    """Project x [N, ...] radially onto the spherical cap about ``centre``.

    Each sample has its own sphere, of the norm of its centre. Points at a larger angle than
    ``max_angle`` are mapped to the nearest point of the cap's border.
    """
    flat, middle = x.flatten(1), centre.flatten(1)
    radius = middle.norm(dim=1, keepdim=True)
    towards = middle / radius
    along = (flat * towards).sum(dim=1, keepdim=True)
    across = flat - along * towards
    length = across.norm(dim=1, keepdim=True)
    inside = torch.atan2(length.detach(), along.detach()) <= max_angle
    ray = flat / flat.norm(dim=1, keepdim=True)
    # Where the length is 0 the point is the centre, which is inside.
    border = math.cos(max_angle) * towards + math.sin(max_angle) * across / length.clamp(min=1e-30)
    found: Tensor = radius * torch.where(inside, ray, border)
    return found.reshape(x.shape)
