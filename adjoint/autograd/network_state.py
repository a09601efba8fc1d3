"""The modules that a function uses, and the state of their weights and buffers at an evaluation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from adjoint.autograd.used_tensors import HeldTensor, changed_content, counted_change

# ------------------------------------------------------------------------- modules of a function


def modules_of(function: Callable[..., Any]) -> tuple[nn.Module, ...]:
    """The modules that a function uses by name, directly or through functions that it uses.

    They are looked for in closures, in global variables, in bound and partial arguments, in the
    attributes of objects there that the code names, and in containers and dataclasses.
    """
    found: list[nn.Module] = []
    pending: list[_Used] = [_Used(function, ())]
    seen = set[tuple[int, _Names]]()
    while pending:
        used = pending.pop()
        if (id(used.value), used.names) in seen:
            continue
        seen.add((id(used.value), used.names))
        if isinstance(used.value, nn.Module):
            found.append(used.value)
        else:
            pending.extend(_used_by(*used))
    return tuple(dict.fromkeys(found))


_Names = tuple[str, ...]


class _Used(NamedTuple):
    """A value, and the names in the code that uses it."""

    value: Any
    names: _Names


def _used_by(value: Any, names: _Names) -> list[_Used]:
    """What a value that is no module uses by name."""
    if isinstance(value, FunctionType):
        names = value.__code__.co_names
        near = [value.__globals__[name] for name in names if name in value.__globals__]
        own = [v for v in near if not callable(v) or _belongs(v, value.__module__)]
        return _each([*map(_contents, value.__closure__ or ()), *own], names)
    if isinstance(value, MethodType):
        bound = _Used(value.__self__, _names_in(value.__func__))
        return [bound, _Used(value.__func__, ())]
    if isinstance(value, partial):
        return _each([value.func, *value.args, *value.keywords.values()], names)
    if is_dataclass(value) and not isinstance(value, type):
        named = [getattr(value, each.name, None) for each in fields(value)]
        return [*_each(named, names), *_attributes(value, names)]
    if isinstance(value, list | tuple):
        return _each(value, names)
    if isinstance(value, Mapping):
        return _each(value.values(), names)
    if isinstance(value, ModuleType | type):
        return []
    return _attributes(value, names)


def _belongs(value: Any, module: str) -> bool:
    """Whether a global variable may lead to networks: not the functions of other packages."""
    return isinstance(value, nn.Module) or getattr(value, "__module__", None) == module


def _each(values: Iterable[Any], names: _Names) -> list[_Used]:
    return [_Used(value, names) for value in values]


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet assigned
        return None


def _attributes(owner: Any, names: _Names) -> list[_Used]:
    """The attributes of an object that the code names, and its methods, as well as its call."""
    own = [value for name, value in getattr(owner, "__dict__", {}).items() if name in names]
    static = [inspect.getattr_static(type(owner), name, None) for name in ("__call__", *names)]
    methods = [MethodType(each, owner) for each in static if isinstance(each, FunctionType)]
    return _each([*own, *methods], names)


def _names_in(function: Any) -> _Names:
    return function.__code__.co_names if isinstance(function, FunctionType) else ()


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
    """Modules with the places of all their weights and buffers, found once.

    Attributes:
        others: tensors that the first evaluation used, and that are not in these modules.
    """

    modules: tuple[nn.Module, ...]
    places: tuple[_Place, ...]
    others: list[Tensor] = field(default_factory=list)

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

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Switch all modules to evaluation mode within the block, which ends dropout."""
        training = [own for module in self.modules for own in module.modules() if own.training]
        try:
            for own in training:
                own.training = False
            with torch.compiler.set_stance("force_eager"):
                yield
        finally:
            for own in training:
                own.training = True


@dataclass(frozen=True, eq=False)
class NetworkState:
    """Weights, buffers, arguments and all else that an evaluation uses, at its time.

    Attributes:
        places: of the weights and buffers.
        kinds: the device and dtype of each weight and buffer.
        held: what must not change, as it was.
    """

    places: tuple[_Place, ...]
    kinds: tuple[tuple[torch.device, torch.dtype], ...]
    held: list[HeldTensor]

    @classmethod
    def capture(cls, modules: Modules, arguments: Sequence[Tensor]) -> NetworkState:
        """The state as it is now."""
        own = {id(place.tensor): (place.tensor, place.name) for place in modules.places}
        named = [HeldTensor.of(*each) for each in own.values()]
        others = (each for each in (*arguments, *modules.others) if id(each) not in own)
        kinds = tuple((place.tensor.device, place.tensor.dtype) for place in modules.places)
        return cls(modules.places, kinds, [*named, *map(HeldTensor.of, others)])

    def add(self, used: Sequence[HeldTensor], modules: Modules) -> None:
        """Add what the first evaluation used, for the others as well.

        Raises ValueError if the evaluation changed it.
        """
        own = {id(place.tensor) for place in self.places}
        others = [each for each in used if id(each.tensor) not in own]
        modules.others[:] = [each.tensor for each in others]
        known = {id(each.tensor) for each in self.held}
        self.held.extend(each for each in others if id(each.tensor) not in known)
        self.check_own_buffers()

    def check_own_buffers(self) -> None:
        """Raise ValueError if the evaluation changed what it depends on."""
        changed = counted_change(self.held)
        if changed is not None:
            raise ValueError(
                f"The network changes {changed} while it is evaluated, as batch and spectral "
                "normalisation do in training mode, so it cannot be evaluated twice; call eval(), "
                "or take DirectAdjoint()."
            )

    def check_unchanged(self) -> None:
        """Raise RuntimeError if a tensor was changed in place since the evaluation."""
        changed = counted_change(self.held) or changed_content(self.held)
        if changed is not None:
            raise RuntimeError(
                f"Since the run, {changed} was changed in place, so the gradient would be that of "
                "another network; run backward first, or change a copy."
            )

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
