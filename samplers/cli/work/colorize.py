"""The work of ``samplers colorize``: a grey picture in, pictures of colours out."""

from __future__ import annotations

import argparse

from samplers.cli.images import read_image
from samplers.cli.restoring import Given, draw_answers
from samplers.images.pixels import to_images
from samplers.inverse_problems import colourisation


def run(arguments: argparse.Namespace) -> int:
    """Draw colours for the picture; returns the exit code."""
    return draw_answers(arguments, _read)


def _read(arguments: argparse.Namespace, shape: tuple[int, int, int]) -> Given:
    if shape[0] != 3:
        raise ValueError("This network draws no colours; take one of images with 3 channels.")
    grey = read_image(arguments.image, (1, *shape[1:]))
    operator = colourisation(shape, arguments.grey)
    settings = {"image": str(arguments.image), "grey": arguments.grey}
    return Given(operator, grey, {"given": to_images(grey)[0]}, settings)
