"""``samplers interpolate``: interpolation between images through their latent codes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from samplers.cli.common.errors import Failure
from samplers.cli.common.options import FlowOptions, OverwriteOptions, TemperatureOptions
from samplers.cli.common.output import check_places, check_png, prepare_folder, write
from samplers.cli.common.program import argument, command, option
from samplers.cli.common.values import OUTPUT, PATH, POSITIVE, SEEDS

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from samplers.images.figures import Figure
    from samplers.images.inputs import ImageInput

_EXAMPLES = """
Examples:
  samplers interpolate assets/digits three.png eight.png --output strip.png
  samplers interpolate assets/digits --seeds 0,1,2 --label 3 --output strip.png

The codes of the images, or initial noises, are interpolated along a great circle (slerp), and on to
the next if more than two are given: a row of the strip for each pair. One --label holds for all.
"""


class InterpolateOptions(FlowOptions, TemperatureOptions, OverwriteOptions, section="Output"):
    images: tuple[Path, ...] = argument(
        "[IMAGES...]", type=PATH, help="Two or more PNG or JPEG files.", nargs=-1
    )
    seeds: tuple[int, ...] | None = option(
        type=SEEDS, help="Seeds of initial noise, in place of images: 0,1 or 0-3."
    )
    frames: int = option(type=POSITIVE, help="Images per row, including both ends.", default=8)
    output: Path = option(type=OUTPUT, help="Image to write.", metavar="NAME.png", required=True)

    def check(self) -> None:
        """Raise what can be seen to be wrong without loading anything."""
        check_png(self.output, "the strip")
        if self.frames < 2:
            raise ValueError(f"--frames is {self.frames}; a row has at least its 2 ends.")
        if (self.seeds is None) == (not self.images):
            raise ValueError("Give either images or --seeds to interpolate between, and not both.")
        if self.seeds is not None and len(self.seeds) < 2:
            raise ValueError("--seeds lists one seed; give two or more.")
        if isinstance(self.label, str) or len(self.label or ()) > 1:
            raise ValueError("One --label holds for all images; give a single class.")
        self.check_checkpoint()


@command(_EXAMPLES, single_process=True)
def run(options: InterpolateOptions) -> None:
    """Interpolate between images through their latent codes."""
    options.check()
    import torch

    from samplers.cli.common.flow import open_flow, report
    from samplers.images.inputs import read_inputs
    from samplers.images.pixels import to_images
    from samplers.noise import initial_noise
    from samplers.probability_flow.codes import DEFAULT, interpolate, tempered

    flow = open_flow(options, DEFAULT)
    inputs = read_inputs(options.images, flow.checkpoint.image_shape)
    if options.seeds is None and len(inputs) < 2:
        raise ValueError(f"{len(inputs)} image came; give two or more, or --seeds.")
    check_places([options.output], [image.path for image in inputs])
    prepare_folder(options.output.parent)
    if options.seeds is None:
        encoded = flow.encode(inputs, flow.labels(len(inputs)))
        _check_tolerance(encoded.within_tolerance, options.max_nfe)
        ends = encoded.x
    else:
        ends = initial_noise(options.seeds, flow.checkpoint.shape)
    rows = [interpolate(a, b, options.frames) for a, b in pairwise(ends)]
    codes = tempered(torch.cat(rows), options.temperature)
    labels = flow.labels(len(codes))
    found = flow.decode(codes, labels)
    about = {
        **flow.parameters(labels and labels[:1], options.seeds),
        "images": [str(image.path) for image in inputs],
        "frames": options.frames,
        "temperature": options.temperature,
    }
    write(_strip(options.frames, inputs, to_images(found.x)), options.output, about)
    report("image", found, "", options.output)


def _check_tolerance(within: Tensor, max_nfe: int) -> None:
    """Raise Failure for codes that are not within the tolerance: their ends would be garbled."""
    missed = int((~within).sum())
    if missed:
        raise Failure(
            f"The codes of {missed} of {len(within)} images are not within the tolerance, since "
            f"--max-nfe {max_nfe} ran out; raise it, or --tolerance."
        )


def _strip(frames: int, inputs: list[ImageInput], sampled: list[Image.Image]) -> Figure:
    """A row for each pair, between the given images if there are any."""
    from samplers.images.figures import Cell, table
    from samplers.images.pixels import to_images, values_of

    given = [Cell(to_images(values_of(image.levels))[0]) for image in inputs]
    rows = []
    for number in range(len(sampled) // frames):
        between = [Cell(image) for image in sampled[number * frames : (number + 1) * frames]]
        rows.append(("", [*given[number : number + 1], *between, *given[number + 1 : number + 2]]))
    shares = [f"{place / (frames - 1):.2g}" for place in range(frames)]
    headings = ["given", *shares, "given"] if given else shares
    return table("along great circles between codes", headings, rows)
