"""The parser of the command ``text2pde``, and how errors leave it."""

from __future__ import annotations

from collections.abc import Sequence

from samplers.cli.arguments import Parser, program
from samplers.cli.ending import run_program
from text2pde.cli import (
    encode,
    evaluate,
    generate,
    infer,
    show,
    simulate,
    train_autoencoder,
    train_diffusion,
)

_COMMANDS = (generate, infer, simulate, show, train_autoencoder, encode, train_diffusion, evaluate)

_TOUR = """\
a tour:
  text2pde generate "Water flows past a cylinder of radius 0.05 m at Reynolds number 120" \\
      --output street.gif                        the bundled model draws it
  text2pde simulate data/cylinder --cases 150    flows around cylinders, one file a case; after an
                                                 interruption the same command goes on
  text2pde show data/cylinder/case-00000.safetensors --output street.gif
                                                 its vortices, as a film or a strip of pictures
  accelerate launch -m text2pde train-autoencoder data/cylinder --output runs/autoencoder
                                                 the latents of such flows; it goes on as well
  text2pde encode runs/autoencoder/autoencoder data/cylinder --output runs/latents.safetensors
                                                 the latents of all clips, once
  accelerate launch -m text2pde train-diffusion runs/latents.safetensors \\
      --autoencoder runs/autoencoder/autoencoder --output runs/diffusion
                                                 a model for `generate --checkpoint`
  text2pde evaluate data/held-out --training data/cylinder
                                                 how good a model is, beside what needs none
  text2pde infer data/held-out/case-00000.safetensors --output after.gif
                                                 how a flow goes on from its first frame

`generate`, `infer` and `evaluate` take the model in assets/cylinder of this repository, unless
another is named.

exit codes: 0 done, 1 something failed on the way, 2 impossible settings, 130 interrupted
"""


def build_parser() -> Parser:
    """The parser of the whole command line."""
    return program("text2pde", "From a sentence to a flow.", _TOUR, _COMMANDS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Errors are one sentence on stderr."""
    return run_program(build_parser(), argv)
