"""Layer 7. The command line: parse, build, call; no mathematics.

One module a command, and :mod:`samplers.cli.arguments` for what they share. Exit codes: 0 done,
1 something failed on the way, 2 the command asks for something impossible, 130 interrupted.
"""

from samplers.cli.main import main

__all__ = ["main"]
