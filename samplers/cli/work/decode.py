"""The work of ``samplers decode``: a file of codes in, pictures out."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from samplers.cli.codes import Codes, check_codes, read_codes
from samplers.cli.flowing import Opened, open_flow, report
from samplers.cli.output import check_places, is_picture, prepare_folder, write
from samplers.cli.processes import join
from samplers.images.pixels import columns_for, sheet, to_images
from samplers.probability_flow.codes import DEFAULT, tempered


def run(arguments: argparse.Namespace) -> int:
    """Decode the codes; returns the exit code."""
    single = is_picture(arguments.output)
    processes = join(arguments.device)
    if not processes.main:
        return 0
    stored = read_codes(arguments.codes)
    if arguments.null_label is None:
        arguments.null_label = stored.about["null_label"]
    opened = open_flow(arguments, processes, DEFAULT)
    check_codes(stored, arguments.codes, opened.checkpoint)
    opened = _as_encoded(arguments, opened, stored)
    count = len(stored.codes)
    asked = arguments.label
    labels = stored.labels if asked is None else opened.labels(count)
    codes = tempered(stored.codes, arguments.temperature)
    names = [f"code-{number:05d}.png" for number in range(count)]
    places = [arguments.output] if single else [arguments.output / name for name in names]
    check_places(places, [arguments.codes])
    prepare_folder(arguments.output.parent if single else arguments.output)

    found = opened.decode(codes, labels)
    images = to_images(found.x)
    own = {"codes": str(arguments.codes), "temperature": arguments.temperature}
    about = opened.parameters(labels) | own
    if single:
        write(sheet(images, columns_for(count, 0)), arguments.output, about)
    else:
        for number, (image, place) in enumerate(zip(images, places, strict=True)):
            write(image, place, about | {"number": number})
    report("image", found, "", arguments.output)
    return 0


def _as_encoded(arguments: argparse.Namespace, opened: Opened, stored: Codes) -> Opened:
    """The flow that the codes were found with, but for what the arguments say."""
    names = ("guidance", "guidance_rescale", "sigma_min", "sigma_max")
    given: dict[str, Any] = {
        name: stored.about[name] for name in names if getattr(arguments, name) is None
    }
    return replace(opened, recipe=opened.checkpoint.settle(replace(opened.recipe, **given)))
