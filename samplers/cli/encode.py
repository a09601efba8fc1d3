"""``samplers encode``: images as latent codes."""

from __future__ import annotations

from pathlib import Path

from samplers.cli.common.errors import writing
from samplers.cli.common.options import FlowOptions, OverwriteOptions
from samplers.cli.common.output import check_folder, prepare_folder, refuse_folder
from samplers.cli.common.program import argument, command, option
from samplers.cli.common.values import OUTPUT, PATH, SEEDS

_EXAMPLES = """
Example:
  samplers encode assets/digits three.png seven.png --label 3,7 --output codes.safetensors
  samplers decode assets/digits codes.safetensors --output decoded.png

The probability flow maps images to noise and back, one to one (DDIM inversion). The file has the
noise, in units of its standard deviation, as the tensor "codes".
"""


class EncodeOptions(FlowOptions, OverwriteOptions, section="Output"):
    images: tuple[Path, ...] = argument(
        "IMAGES...", type=PATH, help="PNG or JPEG files, and folders.", nargs=-1, required=True
    )
    noise_seeds: tuple[int, ...] | None = option(
        type=SEEDS,
        help="Seeds, one for each image, of the noise of the cleanest level, which is added to "
        "images without it. With it, codes of sampled images are standard normal.",
        show_default="no noise",
    )
    output: Path = option(
        type=OUTPUT,
        help="File of latent codes to write.",
        metavar="NAME.safetensors",
        required=True,
    )


@command(_EXAMPLES, single_process=True)
def run(options: EncodeOptions) -> None:
    """Encode images as latent codes."""
    if options.output.suffix != ".safetensors":
        raise ValueError(f"The output is {options.output}; name it NAME.safetensors.")
    refuse_folder(options.output)
    check_folder(options.output.parent)
    options.check_checkpoint()
    from samplers.checkpoint.codes import Codes, write_codes
    from samplers.cli.common.flow import open_flow, report
    from samplers.images.inputs import read_inputs
    from samplers.probability_flow.codes import DEFAULT

    flow = open_flow(options, DEFAULT)
    inputs = read_inputs(options.images, flow.checkpoint.image_shape)
    labels = flow.labels(len(inputs))
    seeds = options.noise_seeds
    if seeds is not None and len(seeds) != len(inputs):
        raise ValueError(f"--noise-seeds lists {len(seeds)} for {len(inputs)} images.")
    prepare_folder(options.output.parent)
    found = flow.encode(inputs, labels, seeds)
    about = {**flow.parameters(labels, seeds), "images": [str(image.path) for image in inputs]}
    with writing(options.output):
        write_codes(options.output, Codes(found.x, labels, about))
    mean, std = float(found.x.mean()), float(found.x.std())
    report("code", found, f", mean {mean:.2f}, standard deviation {std:.2f}", options.output)
