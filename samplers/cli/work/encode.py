"""The work of ``samplers encode``: pictures in, a file of codes out."""

from __future__ import annotations

import argparse

from torch import Tensor

from samplers.cli.codes import Codes, write_codes
from samplers.cli.flowing import open_flow, report
from samplers.cli.images import read_pictures
from samplers.cli.output import prepare_folder, refuse_folder
from samplers.cli.processes import join
from samplers.probability_flow.codes import DEFAULT


def run(arguments: argparse.Namespace) -> int:
    """Encode the pictures; returns the exit code."""
    if arguments.output.suffix != ".safetensors":
        raise ValueError(f"The output is {arguments.output}; name it NAME.safetensors.")
    refuse_folder(arguments.output)
    processes = join(arguments.device)
    if not processes.main:
        return 0
    opened = open_flow(arguments, processes, DEFAULT)
    pictures = read_pictures(arguments.images, opened.checkpoint.image_shape)
    labels = opened.labels(len(pictures))
    prepare_folder(arguments.output.parent)
    found = opened.encode(pictures, labels)
    about = {**opened.parameters(labels), "images": [str(picture.path) for picture in pictures]}
    write_codes(arguments.output, Codes(found.x, labels, about))
    report("code", found, f", {_moments(found.x)}", arguments.output)
    return 0


def _moments(codes: Tensor) -> str:
    """What is 0 and 1 for codes of the model's own data."""
    return f"mean {float(codes.mean()):.2f}, standard deviation {float(codes.std()):.2f}"
