"""How a command ends that failed on the way; impossible settings are a ValueError instead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from samplers.errors import NotFiniteError


class Failure(Exception):
    """Something failed on the way; the command ends with this sentence and code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def named_failures(remedy: str) -> Iterator[None]:
    """Around network calls: what may go wrong with them leaves as a Failure.

    Args:
        remedy: what to do if the device's memory is too small.
    """
    try:
        yield
    except NotFiniteError as error:
        raise Failure(str(error)) from error
    except (MemoryError, RuntimeError) as error:  # that of a CPU has no class of its own
        if not is_of_memory(error):
            raise
        raise Failure(f"The device ran out of memory; {remedy}.") from error


def is_of_memory(error: Exception) -> bool:
    """Whether a device has too little memory for what was asked."""
    named = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return named or any(words in str(error) for words in ("can't allocate memory", "bad_alloc"))


def smaller_batches(size: int) -> str:
    """The remedy of commands that draw in batches."""
    return f"take --batch-size below {size}" if size > 1 else "one image at once is too much for it"
