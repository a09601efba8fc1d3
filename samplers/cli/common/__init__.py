"""What the commands of all three programs share; nothing here imports torch when it is imported.

==============  ====================================================================================
``program``     the programs and their commands: options in groups, help, completion
``options``     groups of options that several commands have: model, seeds, grid, device
``values``      types of values: seeds, labels, names of samplers
``errors``      exit codes, and errors in one sentence
``output``      checks of output paths, and writing images with their parameters
``processes``   what ``accelerate launch`` started
``text``        aligned columns, and counts with a noun
==============  ====================================================================================
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Sequence
from importlib import import_module


def start(module: str, argv: Sequence[str] | None) -> int:
    """Run the program ``PROGRAM`` of a module; returns the exit code.

    Args:
        argv: the words of the command line; None for those of this process.
    """
    _end_as_if_interrupted()
    try:
        program = import_module(module).PROGRAM
    except KeyboardInterrupt:  # at the start, before anything else could say so
        print(f"{module.split('.', maxsplit=1)[0]}: error: Interrupted.", file=sys.stderr)
        return 130
    code: int = program.run(sys.argv[1:] if argv is None else argv)
    return code


def _end_as_if_interrupted() -> None:
    """Have SIGTERM, by which schedulers of jobs end a process, do what Ctrl-C does."""
    of_main = threading.current_thread() is threading.main_thread()
    if of_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
