"""Images of point sets in the plane."""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor

INK = (24, 60, 120)


def density(points: Tensor, edge: float, full: float, pixels: int) -> Image.Image:
    """The density of points [N, 2]: white where there are none, blue where they are dense.

    edge: half the side of the image, which is centred on 0.
    full: the density of full blue, as the share of all points in a square of side 1.
    pixels: of the side.
    """
    x, y = points.double().numpy().T
    counts = np.histogram2d(-y, x, bins=pixels, range=[(-edge, edge)] * 2)[0]
    area = (2 * edge / pixels) ** 2
    shade = np.minimum(counts / (len(points) * area * full), 1)[:, :, None]
    return Image.fromarray((255 + shade * (np.array(INK) - 255)).round().astype(np.uint8))
