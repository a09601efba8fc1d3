"""Layer 7. The command line: one file per command; no mathematics.

Each command parses its options, checks what can be checked at once, and only then imports torch
and diffusers, which takes seconds. What commands share, also those of the other packages, is in
``common/``. Exit codes: 0 done, 1 failed during the run, 2 impossible settings, 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence

from samplers.cli.common import start


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Errors are one sentence on stderr."""
    return start("samplers.cli.program", argv)
