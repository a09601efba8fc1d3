"""How a command ends: its exit code, and what went wrong as one sentence on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from samplers.cli.arguments import Parser
from samplers.cli.failure import Failure, is_of_memory
from samplers.cli.processes import is_main_process


def run_program(parser: Parser, argv: Sequence[str] | None) -> int:
    """Run the command that the words ask for; returns the exit code. Errors are one sentence."""

    def run() -> int:
        arguments = parser.parse_args(argv)
        code: int = arguments.run(arguments)
        return code

    return _ending(parser.prog, run)


def _ending(program: str, run: Callable[[], int]) -> int:
    """The exit code of what ``run`` does for the command ``program``."""
    try:
        return run()
    except SystemExit as stop:  # argparse, after --help
        return int(stop.code or 0)
    except BrokenPipeError:
        # Whoever read our output, such as `head`, has had enough of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _report(program, "Interrupted.", 130)
    except ValueError as error:
        return _report(program, error, 2)
    except Failure as failure:
        return _report(program, failure, failure.code)
    except OverflowError as error:
        return _report(program, f"A number is too large to reckon with ({error}).", 2)
    except (MemoryError, RuntimeError) as error:
        if not is_of_memory(error):
            raise
        return _report(program, "There is not enough memory for what was asked; ask for less.", 1)
    except OSError as error:
        return _report(program, _sentence(error), 1)


def _sentence(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{where}."


def _report(program: str, message: object, code: int) -> int:
    if is_main_process():
        text = " ".join(str(message).split())
        print(f"{program}: error: {text}", file=sys.stderr)
    return code
