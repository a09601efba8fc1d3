"""The command ``adjoint``, one file a command: parse, build, call; no mathematics."""

from __future__ import annotations

from collections.abc import Sequence

from samplers.cli.common import start


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. An error is one sentence on stderr."""
    return start("adjoint.cli.program", argv)
