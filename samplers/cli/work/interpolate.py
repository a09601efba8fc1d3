"""The work of ``samplers interpolate``: pictures or seeds in, a strip out."""

from __future__ import annotations

import argparse
from itertools import pairwise

import torch
from PIL import Image
from torch import Tensor

from samplers.cli.flowing import Opened, open_flow, report
from samplers.cli.images import Picture, read_pictures
from samplers.cli.output import check_places, is_picture, prepare_folder, write
from samplers.cli.processes import join
from samplers.images.pixels import Cell, table, to_images, values_of
from samplers.noise import initial_noise
from samplers.probability_flow.codes import DEFAULT, interpolate, tempered


def run(arguments: argparse.Namespace) -> int:
    """Draw the way from each picture or seed to the next; returns the exit code."""
    _check(arguments)
    processes = join(arguments.device)
    if not processes.main:
        return 0
    opened = open_flow(arguments, processes, DEFAULT)
    pictures = read_pictures(arguments.images, opened.checkpoint.image_shape)
    if arguments.seeds is None and len(pictures) < 2:
        raise ValueError(f"{len(pictures)} picture is no way; give two or more, or --seeds.")
    check_places([arguments.output], [picture.path for picture in pictures])
    prepare_folder(arguments.output.parent)
    ends = _codes(arguments, opened, pictures)
    ways = [interpolate(a, b, arguments.frames) for a, b in pairwise(ends)]
    codes = tempered(torch.cat(ways), arguments.temperature)
    labels = opened.labels(len(codes))
    found = opened.decode(codes, labels)
    picture = _strip(arguments, pictures, to_images(found.x))
    about = {
        **opened.parameters(labels and labels[:1], arguments.seeds),
        "images": [str(picture.path) for picture in pictures],
        "frames": arguments.frames,
        "temperature": arguments.temperature,
    }
    write(picture, arguments.output, about)
    report("image", found, "", arguments.output)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if not is_picture(arguments.output):
        raise ValueError(f"The output is {arguments.output}; it is one picture, NAME.png.")
    if arguments.frames < 2:
        raise ValueError(f"--frames is {arguments.frames}; a way has at least its 2 ends.")
    if (arguments.seeds is None) == (not arguments.images):
        raise ValueError("Give either pictures or --seeds to go between, and not both.")
    if arguments.seeds is not None and len(arguments.seeds) < 2:
        raise ValueError("--seeds lists one seed; a way leads from one to another.")
    if isinstance(arguments.label, str) or len(arguments.label or ()) > 1:
        raise ValueError("One --label holds for the whole way; give a single class.")


def _codes(arguments: argparse.Namespace, opened: Opened, pictures: list[Picture]) -> Tensor:
    """The codes to go between."""
    if arguments.seeds is not None:
        return initial_noise(arguments.seeds, opened.checkpoint.shape)
    return opened.encode(pictures, opened.labels(len(pictures))).x


def _strip(
    arguments: argparse.Namespace, pictures: list[Picture], drawn: list[Image.Image]
) -> Image.Image:
    """A row for each way, between the given pictures if there are any."""
    frames = arguments.frames
    given = [to_images(values_of(picture.levels))[0] for picture in pictures]
    rows = []
    for number in range(len(drawn) // frames):
        way = [Cell((image,), ()) for image in drawn[number * frames : (number + 1) * frames]]
        ends = [Cell((image,), ()) for image in given[number : number + 2]]
        rows.append(("", [*ends[:1], *way, *ends[1:]]))
    shares = [f"{place / (frames - 1):.2g}" for place in range(frames)]
    headings = ["given", *shares, "given"] if given else shares
    return table("along great circles between codes", headings, rows)
