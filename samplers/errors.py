"""Layer 0. Errors of this package that carry more than a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class NotFiniteError(ArithmeticError):
    """The network returned NaN or infinity; ``x`` holds the last good state of the sample."""

    def __init__(self, message: str, x: Tensor) -> None:
        super().__init__(message)
        self.x = x


class FolderTakenError(ValueError):
    """A run would replace files of its folder that it did not write.

    Args:
        what: the first of them, or the setting by which its run differs.
        overwrite: how these files may be replaced nevertheless.
    """

    def __init__(self, what: str, overwrite: str = "overwrite=True") -> None:
        super().__init__(
            f"{what}; choose another folder, repeat the settings of its run to resume it, or pass "
            f"{overwrite} to replace it."
        )
        self.what = what


def is_of_memory(error: Exception) -> bool:
    """Whether the error says that a device ran out of memory."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(words in str(error) for words in ("can't allocate memory", "bad_alloc"))
