"""The parser of the command ``adjoint``, and how errors leave it."""

from __future__ import annotations

from collections.abc import Sequence

from adjoint.cli import finetune, gap, residual, rewards
from samplers.cli.arguments import Parser, program
from samplers.cli.ending import run_program

_COMMANDS = (finetune, rewards, residual, gap)

_TOUR = """\
a tour:
  adjoint rewards                                 what an image can be rewarded for
  adjoint finetune --config examples/effects/bold.toml
                                                  optimise what the file says; after an interruption
                                                  the same command goes on where it stopped
  accelerate launch -m adjoint.finetune --config examples/effects/bold.toml
                                                  the same, by all devices of the machine
  adjoint residual assets/digits --output residual.png
                                                  how far a network is from the score of any
                                                  diffusion process, at each noise level
  adjoint gap assets/digits --output gap.png      how far its ODE samples are from its SDE samples

exit codes: 0 done, 1 something failed on the way, 2 impossible settings, 130 interrupted
"""


def build_parser() -> Parser:
    """The parser of the whole command line."""
    purpose = "Gradients through sampling, and what they are used for."
    return program("adjoint", purpose, _TOUR, _COMMANDS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Errors are one sentence on stderr."""
    return run_program(build_parser(), argv)
