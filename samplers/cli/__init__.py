"""Layer 7. The command line: parse, build, call; no mathematics.

``commands/`` holds the arguments of each command, ``work/`` what it does with them, in a file of
the same name; beside these folders stands what they share. Exit codes: 0 done, 1 something failed
on the way, 2 the command asks for something impossible, 130 interrupted.
"""

from samplers.cli.main import main

__all__ = ["main"]
