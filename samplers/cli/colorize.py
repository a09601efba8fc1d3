"""``samplers colorize``: sample the colours of a grey image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

from click import Choice

from samplers.choices import Grey
from samplers.cli.common.options import ABOUT_SAMPLES, InverseProblemOptions
from samplers.cli.common.program import argument, command, option
from samplers.cli.common.values import PATH

if TYPE_CHECKING:
    from samplers.cli.common.inverse import Measured

_EXAMPLES = f"""
Example:
  samplers colorize assets/colour grey.png --num-images 6 --output coloured.png

{ABOUT_SAMPLES}
"""


class ColorizeOptions(InverseProblemOptions, section="Measurement"):
    image: Path = argument("GREY", type=PATH, help="Grey image, PNG or JPEG.")
    grey: Grey = option(
        type=Choice(get_args(Grey)),
        help="How the grey image was computed from colours: as the luma of ITU-R BT.601, as most "
        "programs do, or as the mean of red, green and blue.",
        default="luma",
    )


@command(_EXAMPLES, single_process=True)
def run(options: ColorizeOptions) -> None:
    """Sample the colours of a grey image."""
    options.check([options.image])
    from samplers.cli.common.inverse import solve

    solve(options, lambda shape: _measured(options, shape))


def _measured(options: ColorizeOptions, shape: tuple[int, int, int]) -> Measured:
    from samplers.cli.common.inverse import Measured
    from samplers.images.inputs import read_image
    from samplers.images.pixels import to_images
    from samplers.inverse_problems import colourisation

    if shape[0] != 3:
        raise ValueError("This network has no colours; take one of images with 3 channels.")
    grey = read_image(options.image, (1, *shape[1:]))
    settings = {"image": str(options.image), "grey": options.grey}
    operator = colourisation(shape, options.grey)
    return Measured(operator, grey, {"given": to_images(grey)[0]}, settings)
