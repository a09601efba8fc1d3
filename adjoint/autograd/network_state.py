"""The modules that a function uses, and the state of their weights and buffers at an evaluation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from adjoint.autograd.torch_internals import version_of

# ------------------------------------------------------------------------- modules of a function


def modules_of(function: Callable[..., Any]) -> tuple[nn.Module, ...]:
    """The modules that a function uses by name, directly or through functions that it uses.

    They are looked for in closures, in global variables, in bound and partial arguments, and in
    containers and dataclasses there.
    """
    found: list[nn.Module] = []
    pending, seen = [function], set[int]()
    while pending:
        value: Any = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module):
            found.append(value)
        else:
            pending.extend(_used_by(value))
    return tuple(found)


def _used_by(value: Any) -> list[Any]:
    """What a value that is no module uses by name."""
    if isinstance(value, FunctionType):
        names = value.__code__.co_names
        near = [value.__globals__[name] for name in names if name in value.__globals__]
        own = [v for v in near if getattr(v, "__module__", None) == value.__module__]
        modules = [v for v in near if isinstance(v, nn.Module)]
        return [*map(_contents, value.__closure__ or ()), *own, *modules]
    if isinstance(value, MethodType):
        bound = value.__self__
        if isinstance(bound, nn.Module):
            return [bound]
        return [value.__func__, *_attributes(bound, value.__func__)]
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name, None) for field in fields(value)]
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, Mapping):
        return list(value.values())
    call = inspect.getattr_static(type(value), "__call__", None)
    return [call, *_attributes(value, call)] if isinstance(call, FunctionType) else []


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet assigned
        return None


def _attributes(owner: Any, method: Any) -> list[Any]:
    """The attributes of an object that its method names."""
    names = method.__code__.co_names if isinstance(method, FunctionType) else ()
    return [value for name, value in getattr(owner, "__dict__", {}).items() if name in names]


# ---------------------------------------------------------------------------------------- state


class _Place(NamedTuple):
    owner: nn.Module
    name: str

    @property
    def tensor(self) -> Tensor:
        found: Tensor = getattr(self.owner, self.name)
        return found


@dataclass(frozen=True, eq=False)
class Modules:
    """Modules with the places of all their weights and buffers, found once."""

    modules: tuple[nn.Module, ...]
    places: tuple[_Place, ...]

    @classmethod
    def of(cls, modules: Sequence[nn.Module]) -> Modules:
        owners = dict.fromkeys(own for module in modules for own in module.modules())
        places = [
            _Place(owner, name)
            for owner in owners
            for group in (owner.named_parameters(recurse=False), owner.named_buffers(recurse=False))
            for name, _ in group
        ]
        return cls(tuple(modules), tuple(places))

    @property
    def trained(self) -> list[nn.Parameter]:
        """The weights that require a gradient."""
        unique = dict.fromkeys(p for module in self.modules for p in module.parameters())
        return [parameter for parameter in unique if parameter.requires_grad]


@dataclass(frozen=True, eq=False)
class NetworkState:
    """Weights, buffers and arguments at the time of an evaluation.

    Attributes:
        places: of the weights and buffers.
        tensors: the weights and buffers, then the arguments.
        versions: how often each had been changed in place.
        kinds: the device and dtype of each weight and buffer.
    """

    places: tuple[_Place, ...]
    tensors: tuple[Tensor, ...]
    versions: tuple[int, ...]
    kinds: tuple[tuple[torch.device, torch.dtype], ...]

    @classmethod
    def capture(cls, modules: Modules, arguments: Sequence[Tensor]) -> NetworkState:
        """The state as it is now."""
        own = [place.tensor for place in modules.places]
        tensors = (*own, *arguments)
        kinds = tuple((tensor.device, tensor.dtype) for tensor in own)
        return cls(modules.places, tensors, tuple(map(version_of, tensors)), kinds)

    def check_own_buffers(self) -> None:
        """Raise ValueError if the evaluation changed what it depends on."""
        changed = self._changed()
        if changed is not None:
            raise ValueError(
                f"The network changes {changed} while it is evaluated, as batch and spectral "
                "normalisation do in training mode, so it cannot be evaluated twice; call eval(), "
                "or take DirectAdjoint()."
            )

    def check_unchanged(self) -> None:
        """Raise RuntimeError if a tensor was changed in place since the evaluation."""
        changed = self._changed()
        if changed is not None:
            raise RuntimeError(
                f"Since the run, {changed} was changed in place, so the gradient would be that of "
                "another network; run backward first, or change a copy."
            )

    def _changed(self) -> str | None:
        """The first tensor that was changed in place, in words."""
        for number, (tensor, version) in enumerate(zip(self.tensors, self.versions, strict=True)):
            if version_of(tensor) != version:
                named = number < len(self.places)
                what = f"its {self.places[number].name!r}" if named else "an argument of it"
                return f"{what} of shape {tuple(tensor.shape)}"
        return None

    @contextmanager
    def placed(self) -> Iterator[None]:
        """Give weights and buffers their device and dtype of that time within the block."""
        moved = [
            (place.tensor, kind)
            for place, kind in zip(self.places, self.kinds, strict=True)
            if (place.tensor.device, place.tensor.dtype) != kind
        ]
        now = [tensor.data for tensor, _ in moved]
        try:
            for tensor, kind in moved:
                tensor.data = tensor.data.to(*kind)
            yield
        finally:
            for (tensor, _), data in zip(moved, now, strict=True):
                tensor.data = data
