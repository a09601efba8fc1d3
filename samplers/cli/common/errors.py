"""Exit codes, and errors as one sentence on stderr.

Impossible settings are a ValueError, wherever they are found. What fails during the run is a
:class:`Failure`, or an error of the library whose message is one sentence.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from samplers.checkpoint.index import CheckpointError
from samplers.errors import NotFiniteError, is_of_memory


class Failure(Exception):
    """Something failed during the run; the command ends with this sentence and code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def exit_code(program: str, run: Callable[[], int]) -> int:
    """Run a command; returns its exit code and reports what went wrong."""
    try:
        return run()
    except BrokenPipeError:
        # The reader of the output, such as `head`, has closed it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _report(program, "Interrupted.", 130)
    except click.UsageError as error:
        return _report(program, _with_hint(error), 2)
    except ValueError as error:
        return _report(program, error, 2)
    except OverflowError as error:
        return _report(program, f"A number is too large to compute with ({error}).", 2)
    except Failure as failure:
        return _report(program, failure, failure.code)
    except (CheckpointError, NotFiniteError) as error:
        return _report(program, error, 1)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return _report(program, f"{error.strerror or error}".removesuffix(".") + f"{where}.", 1)
    except Exception as error:
        if is_of_memory(error):
            return _report(program, "There is not enough memory; request less at once.", 1)
        if not _is_of_network(error):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        why = f"{lines[0].removesuffix('.')}; its config may not be that of its weights"
        return _report(program, f"The network can't be evaluated: {why}.", 1)


def _is_of_network(error: Exception) -> bool:
    """Whether it was raised inside a network, which checks the values of its config nowhere."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code.co_name == "_wrapped_call_impl" for frame, _ in frames)


def _with_hint(error: click.UsageError) -> str:
    """The message of click for a usage error, with a hint to the help."""
    near = getattr(error, "possibilities", None)  # of mistyped options and commands, best first
    message = error.message if near else error.format_message()
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if getattr(error, "option_name", None) in _OF_PROMPTS and _takes_a_checkpoint(error.ctx):
        message, hint = error.format_message(), "; this command needs a network without a prompt"
    where = "" if error.ctx is None else f" (see `{error.ctx.command_path} --help`)"
    return message.removesuffix(".") + hint + where


_OF_PROMPTS = ("--prompt", "--negative-prompt")


def _takes_a_checkpoint(ctx: click.Context | None) -> bool:
    return ctx is not None and any(param.name == "checkpoint" for param in ctx.command.params)


def _report(program: str, message: object, code: int) -> int:
    if is_main_process():
        text = " ".join(str(message).split())
        print(f"{program}: error: {text}", file=sys.stderr)
    return code


def is_main_process() -> bool:
    """Whether this is the main process of those that ``accelerate launch`` started."""
    return os.environ.get("RANK", "0") == "0"


# -------------------------------------------------------------------------- what fails on the way


@contextmanager
def named_failures(remedy: str) -> Iterator[None]:
    """A context for network evaluations, in which known errors become a Failure.

    Args:
        remedy: what to do if the device's memory is too small.
    """
    try:
        yield
    except NotFiniteError as error:
        raise Failure(str(error)) from error
    except (MemoryError, RuntimeError) as error:  # on a CPU it is a plain RuntimeError
        if not is_of_memory(error):
            raise
        raise Failure(f"The device ran out of memory; {remedy}.") from error


@contextmanager
def printed_warnings() -> Iterator[None]:
    """A context whose warnings are printed as sentences, each once, at its end."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        yield
    for message in dict.fromkeys(str(warning.message) for warning in said):
        print(message, file=sys.stderr)


@contextmanager
def evaluating(remedy: str) -> Iterator[None]:
    """The same, without gradients."""
    import torch

    with torch.no_grad(), named_failures(remedy):
        yield


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A context for writing a file, in which an OSError becomes a Failure."""
    try:
        yield
    except OSError as error:
        raise Failure(f"{path} can't be written: {error.strerror or error}.") from error


def stopped(stop: BaseException, left: str) -> Failure:
    """How a run ends that an interruption or a Failure stopped; ``left`` says what is kept."""
    why, code = (str(stop), stop.code) if isinstance(stop, Failure) else ("Interrupted.", 130)
    return Failure(f"{why} {left}", code)


def smaller_batches(size: int) -> str:
    """The advice of commands that run in batches."""
    return f"take --batch-size below {size}" if size > 1 else "one image at once is too much for it"
