"""``samplers sharpen``: super-resolution and deblurring of an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from samplers.cli.common.options import ABOUT_SAMPLES, InverseProblemOptions
from samplers.cli.common.program import argument, command, option
from samplers.cli.common.values import PATH, POSITIVE, POSITIVE_NUMBER

if TYPE_CHECKING:
    from samplers.cli.common.inverse import Measured

_EXAMPLES = f"""
Examples:
  samplers sharpen assets/digits small.png --downsampled 4 --num-images 6 --output restored.png
  samplers sharpen assets/colour soft.png --blurred 1.5 --noise-std 0.02 --output sharp.png

A blurred image has noise, at least that of rounding to 256 levels (0.003): set --noise-std.

{ABOUT_SAMPLES}
"""


class SharpenOptions(InverseProblemOptions, section="Measurement"):
    image: Path = argument("IMAGE", type=PATH, help="Image, PNG or JPEG.")
    downsampled: int | None = option(
        type=POSITIVE,
        help="A pixel of the image is the mean of a block of K x K pixels of the samples.",
        metavar="K",
    )
    blurred: float | None = option(
        type=POSITIVE_NUMBER,
        help="The image was blurred by a Gaussian of this standard deviation, in pixels.",
        metavar="S",
        excludes=["--downsampled"],
    )


@command(_EXAMPLES, single_process=True)
def run(options: SharpenOptions) -> None:
    """Increase the resolution of a small image, or sharpen a blurred one."""
    if options.downsampled is None and options.blurred is None:
        raise ValueError("The measurement is not specified; give --downsampled or --blurred.")
    options.check([options.image])
    from samplers.cli.common.inverse import solve

    solve(options, lambda shape: _measured(options, shape))


def _measured(options: SharpenOptions, shape: tuple[int, int, int]) -> Measured:
    from samplers.cli.common.inverse import Measured
    from samplers.images.inputs import read_image
    from samplers.images.pixels import to_images
    from samplers.inverse_problems import blurring, downsampling

    size, settings = shape, dict[str, Any]()
    if options.blurred is not None:
        operator, settings["blurred"] = blurring(shape, options.blurred), options.blurred
    else:
        factor = settings["downsampled"] = options.downsampled or 1
        operator = downsampling(shape, factor)
        size = (shape[0], shape[1] // factor, shape[2] // factor)
    given = read_image(options.image, size)
    settings["image"] = str(options.image)
    return Measured(operator, given, {"given": to_images(given)[0]}, settings)
