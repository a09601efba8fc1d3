"""The work of ``samplers restore``: a smaller picture in, pictures of full size out."""

from __future__ import annotations

import argparse

from samplers.cli.images import read_image
from samplers.cli.restoring import Given, draw_answers
from samplers.inverse_problems import InverseProblem, downsampling
from samplers.pictures import to_images


def run(arguments: argparse.Namespace) -> int:
    """Draw pictures that are the given one when they are made smaller; returns the exit code."""
    return draw_answers(arguments, _read)


def _read(arguments: argparse.Namespace, shape: tuple[int, int, int]) -> Given:
    factor = arguments.downsampled
    operator = downsampling(shape, factor)
    small = read_image(arguments.image, (shape[0], shape[1] // factor, shape[2] // factor))
    settings = {"image": str(arguments.image), "downsampled": factor}
    pictures = {"given": to_images(small)[0]}
    return Given(InverseProblem(operator, small), pictures, settings)
