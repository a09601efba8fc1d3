"""Layer 0. Checks of arguments that several modules share."""

from __future__ import annotations

from collections.abc import Sized
from numbers import Integral

from torch import Tensor


def check_whole(name: str, value: object) -> None:
    """Raise ValueError unless the value is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} is {value!r}; it must be a whole number from 1 up.")


def check_at_most(name: str, value: int, most: int) -> None:
    """Raise ValueError for a number of steps, of images or of others that no memory holds."""
    if value > most:
        raise ValueError(f"{name} is {value}; it must be a whole number from 1 to {most:,}.")


def check_numbers(name: str, x: Tensor) -> None:
    """Raise ValueError unless a tensor has a floating-point dtype and is finite."""
    if not x.is_floating_point():
        raise ValueError(f"{name} is a tensor of {x.dtype}; it must be one of floats.")
    if not bool(x.isfinite().all()):
        raise ValueError(f"{name} holds NaN or infinity.")


def check_one_each(what: str, given: Sized, samples: str, count: int) -> None:
    """Raise ValueError unless the number of items equals ``count``, the number of samples."""
    if len(given) != count:
        raise ValueError(f"{len(given)} {what} came for {count} {samples}; give one for each.")
