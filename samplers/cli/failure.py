"""How a command ends that failed on the way; impossible settings are a ValueError instead."""

from __future__ import annotations


class Failure(Exception):
    """Something failed on the way; the command ends with this sentence and code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code
