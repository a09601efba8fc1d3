"""The tensors that a function uses without being given them, and whether they have changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from adjoint.autograd.torch_internals import TorchDispatchMode, tree_leaves, version_of


class HeldTensor(NamedTuple):
    """A tensor on which evaluations depend, as it was at one time.

    Attributes:
        name: of a weight or buffer in its module; empty for others.
        version: how often it had been changed in place.
        checksum: of its content, which also shows what was written past PyTorch's count of
            changes, as by ``weight.data.copy_``; None for a tensor without a content of its own.
    """

    tensor: Tensor
    name: str
    version: int
    checksum: Tensor | None

    @classmethod
    def of(cls, tensor: Tensor, name: str = "") -> HeldTensor:
        """The tensor as it is now."""
        return cls(tensor, name, version_of(tensor), _checksum(tensor))

    def __str__(self) -> str:
        what = f"its {self.name!r}" if self.name else "a tensor that it uses,"
        return f"{what} of shape {tuple(self.tensor.shape)}"


def counted_change(held: Sequence[HeldTensor]) -> HeldTensor | None:
    """The first tensor that PyTorch knows to be changed in place."""
    return next((each for each in held if version_of(each.tensor) != each.version), None)


def changed_content(held: Sequence[HeldTensor]) -> HeldTensor | None:
    """The first tensor whose content is another one."""
    summed = [each for each in held if each.checksum is not None]
    if not summed:
        return None
    then, now = (_together(sums) for sums in zip(*map(_then_and_now, summed), strict=True))
    different = (then != now).nonzero()
    return summed[int(different[0])] if len(different) else None


def _then_and_now(held: HeldTensor) -> tuple[Tensor, Tensor]:
    now = _checksum(held.tensor)
    assert held.checksum is not None
    assert now is not None
    return held.checksum, now


def _together(sums: Iterable[Tensor]) -> Tensor:
    """In one tensor, so that a device is waited for once."""
    first, *others = sums
    return torch.stack([first, *(each.to(first.device) for each in others)])


@torch.no_grad()
def _checksum(tensor: Tensor) -> Tensor | None:
    """The sum of the bytes in words of eight, modulo 2^64: exact, and one pass over the tensor."""
    if not _has_content(tensor):
        return None
    dense = tensor.detach().resolve_conj().resolve_neg().contiguous()
    if dense.storage_offset() * dense.itemsize % 8:
        dense = dense.clone()
    octets = dense.as_strided((dense.numel(),), (1,)).view(torch.uint8)
    whole = len(octets) // 8 * 8
    words = octets[:whole].view(torch.int64).sum()
    return words if whole == len(octets) else words + octets[whole:].sum()


def _has_content(tensor: Tensor) -> bool:
    plain = type(tensor).__torch_dispatch__ is Tensor.__torch_dispatch__
    return plain and tensor.layout == torch.strided and not tensor.is_meta


# ------------------------------------------------------------------------------ one evaluation


@contextmanager
def watched(given: Sequence[Tensor]) -> Iterator[list[HeldTensor]]:
    """Record the tensors that are used in the block, beside those given, before their first use.

    Compiled networks are evaluated without compilation, which hides their operations.
    """
    with torch.compiler.set_stance("force_eager"), _Watch(given) as watch:
        yield watch.used


class _Watch(TorchDispatchMode):
    """Records every storage that was neither given nor made since."""

    def __init__(self, given: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = {storage_of(each) for each in strided(given)}
        self.used: list[HeldTensor] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = kwargs or {}
        if func is not torch.ops.aten.lift_fresh.default:  # of a constant, such as torch.tensor(1)
            new = (each for each in strided([args, options]) if storage_of(each) not in self.known)
            for tensor in new:
                self.used.append(HeldTensor.of(tensor))
                self.known.add(storage_of(tensor))
        result = func(*args, **options)
        self.known.update(map(storage_of, strided(result)))
        return result


def strided(values: Any) -> Iterator[Tensor]:
    """The tensors in a tree that have a storage of their own layout."""
    for each in tree_leaves(values):
        if isinstance(each, Tensor) and each.layout == torch.strided:
            yield each


def storage_of(x: Tensor) -> StorageWeakRef:
    """Which views share; no other storage takes its address as long as this reference lives."""
    return StorageWeakRef(x.untyped_storage())
