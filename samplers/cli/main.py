"""The command ``samplers``: its commands, and how errors leave it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import torch

from samplers.cli.arguments import Parser
from samplers.cli.commands import (
    colorize,
    compare,
    decode,
    encode,
    inpaint,
    interpolate,
    likelihood,
    restore,
    sample,
    show,
)
from samplers.cli.commands import list as list_
from samplers.cli.failure import Failure
from samplers.cli.processes import is_main_process

_COMMANDS = (
    *(sample, compare),
    *(inpaint, colorize, restore),
    *(likelihood, encode, decode, interpolate),
    *(list_, show),
)

_TOUR = """\
a tour:
  samplers list                                   every sampler: order, noise, cost, reference
  samplers show dpmpp-2m --steps 5                the numbers that a sampler consists of
  samplers sample assets/digits --label 3 --guidance 1.5 --steps 15 --output digits.png
                                                  sixteen threes in one picture
  samplers sample assets/digits --seeds 0-999 --batch-size 100 --output digits/
                                                  a folder of single images; after an interruption
                                                  the same command goes on where it stopped
  accelerate launch -m samplers sample assets/digits --seeds 0-999 --output digits/
                                                  the same images, by all devices of the machine
  samplers compare assets/digits --samplers ddim,heun,dpmpp-2m --nfe 5,10,20 --output compare.png
                                                  one picture: samplers by network calls
  samplers inpaint assets/digits three.png --mask hole.png --output completed.png
                                                  what the white of the mask may have hidden
  samplers interpolate assets/digits --seeds 0,1 --label 3 --output strip.png
                                                  from one three to another

exit codes: 0 done, 1 something failed on the way, 2 impossible settings, 130 interrupted
"""


def build_parser() -> Parser:
    """The parser of the whole command line."""
    parser = Parser(
        prog="samplers",
        description="Draw images from diffusion models with any sampler, and look into samplers.",
        epilog=_TOUR,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Errors are one sentence on stderr."""
    try:
        arguments = build_parser().parse_args(argv)
        with torch.no_grad():
            code: int = arguments.run(arguments)
    except SystemExit as stop:  # argparse, after --help
        return int(stop.code or 0)
    except BrokenPipeError:
        # Whoever read our output, such as `head`, has had enough of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _report("Interrupted.", 130)
    except ValueError as error:
        return _report(error, 2)
    except Failure as failure:
        return _report(failure, failure.code)
    except OSError as error:
        return _report(_sentence(error), 1)
    return code


def _sentence(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{where}."


def _report(message: object, code: int) -> int:
    if is_main_process():
        text = " ".join(str(message).split())
        print(f"samplers: error: {text}", file=sys.stderr)
    return code
