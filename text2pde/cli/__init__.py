"""The command ``text2pde``: a module for each command, with its options and its work.

``program`` lists the commands, ``common`` has what several of them share. No mathematics is here.
"""

from __future__ import annotations

from collections.abc import Sequence

from samplers.cli.common import start


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return start("text2pde.cli.program", argv)
