"""``samplers decode``: images from latent codes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from samplers.cli.common.options import FlowOptions, Labels, OverwriteOptions, TemperatureOptions
from samplers.cli.common.output import (
    check_folder,
    check_places,
    is_png,
    prepare_folder,
    refuse_existing,
    write,
)
from samplers.cli.common.program import argument, changed, command, option
from samplers.cli.common.values import OUTPUT, PATH

if TYPE_CHECKING:
    from samplers.checkpoint.codes import Codes
    from samplers.cli.common.flow import OpenedFlow

_EXAMPLES = """
Examples:
  samplers decode assets/digits codes.safetensors --output decoded.png
  samplers decode assets/digits codes.safetensors --label 5 --temperature 0.7 --output fives/

With the classes, the guidance and the noise levels of its encoding, a code gives the encoded image.
"""
_STORED = "as the codes say"


class DecodeOptions(FlowOptions, TemperatureOptions, OverwriteOptions, section="Output"):
    codes: Path = argument("CODES", type=PATH, help="Latent codes, written by `samplers encode`.")
    label: Labels = changed(FlowOptions, "label", show_default=_STORED)
    guidance: float | None = changed(FlowOptions, "guidance", show_default=_STORED)
    guidance_rescale: float | None = changed(
        FlowOptions, "guidance_rescale", default=None, show_default=_STORED
    )
    guidance_interval: tuple[float, float] | None = changed(
        FlowOptions, "guidance_interval", show_default=_STORED
    )
    sigma_min: float | None = changed(FlowOptions, "sigma_min", show_default=_STORED)
    sigma_max: float | None = changed(FlowOptions, "sigma_max", show_default=_STORED)
    null_label: int | None = changed(FlowOptions, "null_label", show_default=_STORED)
    output: Path = option(
        type=OUTPUT,
        help="NAME.png for one sheet of all images; or a folder for single ones.",
        required=True,
    )


@command(_EXAMPLES, single_process=True)
def run(options: DecodeOptions) -> None:
    """Decode latent codes to images."""
    single = is_png(options.output)
    folder = options.output.parent if single else options.output
    check_folder(folder)
    options.check_checkpoint()
    from samplers.checkpoint.codes import check_codes, read_codes
    from samplers.cli.common.flow import open_flow, report
    from samplers.images.pixels import to_images
    from samplers.images.sheets import columns_for, sheet
    from samplers.probability_flow.codes import DEFAULT, tempered

    stored = read_codes(options.codes)
    if options.null_label is None:
        options = replace(options, null_label=stored.about["null_label"])
    flow = open_flow(options, DEFAULT)
    check_codes(stored, options.codes, flow.checkpoint)
    flow = _as_encoded(options, flow, stored)
    count = len(stored.codes)
    labels = stored.labels if options.label is None else flow.labels(count)
    codes = tempered(stored.codes, options.temperature)
    names = [f"code-{number:05d}.png" for number in range(count)]
    places = [options.output] if single else [options.output / name for name in names]
    check_places(places, [options.codes])
    if not options.overwrite:
        refuse_existing(places)
    prepare_folder(folder)

    found = flow.decode(codes, labels)
    images = to_images(found.x)
    own = {"codes": str(options.codes), "temperature": options.temperature}
    about = flow.parameters(labels) | own
    if single:
        write(sheet(images, columns_for(count, 0)), options.output, about)
    else:
        for number, (image, place) in enumerate(zip(images, places, strict=True)):
            write(image, place, about | {"number": number})
    report("image", found, "", options.output)


def _as_encoded(options: DecodeOptions, flow: OpenedFlow, stored: Codes) -> OpenedFlow:
    """The flow that the codes were encoded with, but for what the options say."""
    names = ("guidance", "guidance_rescale", "guidance_interval", "sigma_min", "sigma_max")
    given = {name: stored.about[name] for name in names if getattr(options, name) is None}
    return replace(flow, recipe=flow.checkpoint.settle(replace(flow.recipe, **given)))
