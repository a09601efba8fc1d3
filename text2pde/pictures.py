"""Pictures of flows on their meshes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from text2pde.flows.clip import Clip
from text2pde.mesh import Integers, Mesh, Numbers
from text2pde.plume import Plume

_MARGIN = 4
# From the most negative through zero to the most positive: blue, paper, red.
_COLOURS = np.array(
    [(23, 64, 139), (120, 170, 220), (248, 248, 246), (236, 150, 110), (160, 24, 44)]
)
_SOLID = (90, 90, 90)
_SHADES = 127


class Raster(NamedTuple):
    """Which triangle each pixel lies in.

    Attributes:
        nodes: of that triangle [H, W, 3]; shares: of the pixel in each [H, W, 3]; inside: whether
            there is such a triangle [H, W].
    """

    nodes: Integers
    shares: Numbers
    inside: NDArray[np.bool_]

    def values(self, at_nodes: Numbers) -> Numbers:
        """The field with these values at the nodes [N], at the pixels [H, W]."""
        found: Numbers = (at_nodes[self.nodes] * self.shares).sum(axis=-1)
        return found


def raster(mesh: Mesh, width: int) -> Raster:
    """Pixels over the rectangle that the mesh lies in, the first row at the top."""
    low, high = mesh.nodes.min(axis=0), mesh.nodes.max(axis=0)
    side = (high[0] - low[0]) / width
    height = max(1, round((high[1] - low[1]) / side))
    nodes = np.zeros((height, width, 3), dtype=np.int64)
    shares = np.zeros((height, width, 3))
    inside = np.zeros((height, width), dtype=bool)
    places = (mesh.corners - low) / side - 0.5
    places[..., 1] = height - 1 - places[..., 1]
    for triangle, corners in zip(mesh.triangles, places, strict=True):
        first = np.maximum(np.ceil(corners.min(axis=0) - 1e-9), 0).astype(int)
        last = np.minimum(np.floor(corners.max(axis=0) + 1e-9), (width - 1, height - 1)).astype(int)
        if (first > last).any():
            continue
        x, y = np.meshgrid(*(np.arange(a, b + 1) for a, b in zip(first, last, strict=True)))
        found = _shares(corners, x, y)
        within = (found > -1e-9).all(axis=-1)
        rows, columns = y[within], x[within]
        nodes[rows, columns], shares[rows, columns] = triangle, found[within]
        inside[rows, columns] = True
    return Raster(nodes, shares, inside)


def _shares(corners: Numbers, x: Integers, y: Integers) -> Numbers:
    """Barycentric coordinates [..., 3] of points."""
    a, b, c = corners
    inverse = np.linalg.inv(np.stack([b - a, c - a], axis=1))
    two = np.stack([x - a[0], y - a[1]], axis=-1) @ inverse.T
    return np.concatenate([1 - two.sum(axis=-1, keepdims=True), two], axis=-1)


def vorticity(mesh: Mesh, velocity: Numbers) -> Numbers:
    """dv/dx - du/dy at the nodes [N], in the mean over the triangles around each, by area."""
    a, b = (mesh.corners[:, i] - mesh.corners[:, 0] for i in (1, 2))
    of_nodes = velocity[mesh.triangles]
    p, q = (of_nodes[:, i] - of_nodes[:, 0] for i in (1, 2))
    double = 2 * mesh.areas
    dv_dx = (p[:, 1] * b[:, 1] - q[:, 1] * a[:, 1]) / double
    du_dy = (q[:, 0] * a[:, 0] - p[:, 0] * b[:, 0]) / double
    total, weight = np.zeros(len(mesh.nodes)), np.zeros(len(mesh.nodes))
    for corner in mesh.triangles.T:
        np.add.at(total, corner, mesh.areas * (dv_dx - du_dy))
        np.add.at(weight, corner, mesh.areas)
    found: Numbers = total / weight
    return found


def frames(clip: Clip, width: int = 640) -> list[Image.Image]:
    """Each frame on one scale: the vorticity of a flow past a cylinder, 4 U / D at its ends, or the
    density of smoke, 1 at its end."""
    pixels = raster(clip.mesh, width)
    return [painted(pixels, _shown(clip, frame.astype(np.float64))) for frame in clip.fields]


def _shown(clip: Clip, frame: Numbers) -> Numbers:
    """What a picture shows at the nodes, from -1 to 1."""
    if isinstance(clip.flow, Plume):
        density: Numbers = frame[:, 2]
        return density
    return vorticity(clip.mesh, frame[:, :2]) * clip.flow.clock / 4


def painted(pixels: Raster, at_nodes: Numbers) -> Image.Image:
    """A field of values from -1 to 1 in colours of a palette; grey where there is no fluid."""
    shades = (pixels.values(at_nodes).clip(-1, 1) + 1) / 2 * (_SHADES - 1)
    numbers = np.where(pixels.inside, shades.round(), _SHADES).astype(np.uint8)
    picture = Image.fromarray(numbers, mode="P")
    picture.putpalette(_palette().tobytes())
    return picture


def _palette() -> NDArray[np.uint8]:
    """The colours of the values [:data:`_SHADES`, 3], and that of what is solid."""
    places = np.linspace(0, len(_COLOURS) - 1, _SHADES)
    stops = np.arange(len(_COLOURS))
    shades = [np.interp(places, stops, channel) for channel in _COLOURS.T]
    return np.append(np.stack(shades, axis=1), [_SOLID], axis=0).round().astype(np.uint8)


def strip(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one size and palette, one below the other."""
    width, height = pictures[0].size
    below = height + _MARGIN
    sheet = Image.new("P", (width, len(pictures) * below - _MARGIN), _SHADES // 2)
    sheet.putpalette(_palette().tobytes())
    for row, picture in enumerate(pictures):
        sheet.paste(picture, (0, row * below))
    return sheet
