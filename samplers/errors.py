"""Layer 0. Errors of this package that are not a ValueError."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class NotFiniteError(ArithmeticError):
    """The network returned NaN or infinity; ``x`` holds the last good state of the sample."""

    def __init__(self, message: str, x: Tensor) -> None:
        super().__init__(message)
        self.x = x
