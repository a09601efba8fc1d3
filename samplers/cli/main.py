"""The command ``samplers``: its commands, and how errors leave it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from samplers.cli.arguments import Parser, program
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
    sharpen,
    show,
)
from samplers.cli.commands import list as list_
from samplers.cli.ending import run_program

_COMMANDS = (
    *(sample, compare),
    *(inpaint, colorize, sharpen, restore),
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
  samplers restore assets/restore rainy.png --task rainy --output dry.png
                                                  a photograph without its rain
  samplers interpolate assets/digits --seeds 0,1 --label 3 --output strip.png
                                                  from one three to another

exit codes: 0 done, 1 something failed on the way, 2 impossible settings, 130 interrupted
"""


def build_parser() -> Parser:
    """The parser of the whole command line."""
    purpose = "Draw images from diffusion models with any sampler, and look into samplers."
    return program("samplers", purpose, _TOUR, _COMMANDS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Errors are one sentence on stderr."""
    with torch.no_grad():
        return run_program(build_parser(), argv)
