"""``samplers inpaint``: fill in the masked region of an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from samplers.cli.common.options import ABOUT_SAMPLES, InverseProblemOptions
from samplers.cli.common.program import argument, command, option
from samplers.cli.common.values import PATH

if TYPE_CHECKING:
    from samplers.cli.common.inverse import Measured

_EXAMPLES = f"""
Example:
  samplers inpaint assets/digits three.png --mask mask.png --num-images 6 --output completed.png

White in the mask is unknown and gets sampled; black stays as it is. The mask has the size of the
image, and greys count as the nearer of the two.

{ABOUT_SAMPLES}
"""


class InpaintOptions(InverseProblemOptions, section="Measurement"):
    image: Path = argument("IMAGE", type=PATH, help="Image, PNG or JPEG.")
    mask: Path = option(
        type=PATH,
        help="Mask, an image of the same size: white is unknown, black is known.",
        metavar="MASK.png",
        required=True,
    )


@command(_EXAMPLES, single_process=True)
def run(options: InpaintOptions) -> None:
    """Fill in the masked region of an image."""
    options.check([options.image, options.mask])
    from samplers.cli.common.inverse import solve

    solve(options, lambda shape: _measured(options, shape))


def _measured(options: InpaintOptions, shape: tuple[int, int, int]) -> Measured:
    from samplers.cli.common.inverse import Measured
    from samplers.images.inputs import read_image, read_mask
    from samplers.images.pixels import to_images
    from samplers.inverse_problems import inpainting

    image = read_image(options.image, shape)
    unknown = read_mask(options.mask, *shape[1:])
    if not bool(unknown.any()):
        raise ValueError(
            f"The mask {options.mask} has no white pixel, so nothing is unknown; paint white "
            "what is to be sampled."
        )
    if bool(unknown.all()):
        raise ValueError(
            f"The mask {options.mask} is all white, so nothing is known; leave black what is to "
            "stay, or use `samplers sample`."
        )
    operator = inpainting(~unknown, shape)
    known = operator.forward(image)
    pictures = {"given": to_images(image)[0], "known": to_images(known)[0]}
    settings = {"image": str(options.image), "mask": str(options.mask)}
    return Measured(operator, known, pictures, settings)
