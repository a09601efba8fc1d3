"""The work of ``samplers sharpen``: a smaller or blurred picture in, whole pictures out."""

from __future__ import annotations

import argparse

from samplers.cli.images import read_image
from samplers.cli.restoring import Given, draw_answers
from samplers.images.pixels import to_images
from samplers.inverse_problems import blurring, downsampling


def run(arguments: argparse.Namespace) -> int:
    """Draw pictures that are the given one if they are measured again; returns the exit code."""
    return draw_answers(arguments, _read)


def _read(arguments: argparse.Namespace, shape: tuple[int, int, int]) -> Given:
    if arguments.downsampled is not None:
        factor = arguments.downsampled
        operator = downsampling(shape, factor)
        measured = (shape[0], shape[1] // factor, shape[2] // factor)
        settings = {"downsampled": factor}
    else:
        operator, measured = blurring(shape, arguments.blurred), shape
        settings = {"blurred": arguments.blurred}
    given = read_image(arguments.image, measured)
    settings |= {"image": str(arguments.image)}
    return Given(operator, given, {"given": to_images(given)[0]}, settings)
