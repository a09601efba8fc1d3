"""The work of ``samplers inpaint``: a picture with a hole in, its completions out."""

from __future__ import annotations

import argparse

from samplers.cli.images import read_image, read_mask
from samplers.cli.output import check_places
from samplers.cli.restoring import Given, draw_answers
from samplers.images.pixels import to_images
from samplers.inverse_problems import inpainting


def run(arguments: argparse.Namespace) -> int:
    """Draw completions of the picture; returns the exit code."""
    return draw_answers(arguments, _read)


def _read(arguments: argparse.Namespace, shape: tuple[int, int, int]) -> Given:
    image = read_image(arguments.image, shape)
    check_places([arguments.output], [arguments.mask])
    unknown = read_mask(arguments.mask, *shape[1:])
    if not bool(unknown.any()):
        raise ValueError(
            f"The mask {arguments.mask} has no white pixel, so nothing is unknown; paint white "
            "what shall be drawn."
        )
    if bool(unknown.all()):
        raise ValueError(
            f"The mask {arguments.mask} is all white, so nothing is known; leave black what shall "
            "stay, or draw freely with `samplers sample`."
        )
    operator = inpainting(~unknown, shape)
    known = operator.forward(image)
    pictures = {"given": to_images(image)[0], "known": to_images(known)[0]}
    settings = {"image": str(arguments.image), "mask": str(arguments.mask)}
    return Given(operator, known, pictures, settings)
