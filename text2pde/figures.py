"""Figures and films of clips, by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import TriMesh
from matplotlib.text import Annotation
from PIL import Image

from samplers.images.figures import Figure
from text2pde.data.clip import Clip
from text2pde.data.statistics import vorticity
from text2pde.mesh import FloatArray
from text2pde.subject.smoke.plume import Plume

_WIDTH = 6.4
"""Of all figures, in inches; the pixels that are asked for decide the resolution."""
_BESIDE, _BELOW, _ABOVE, _TITLE = 1.35, 0.45, 0.25, 0.15
"""The room of labels and colour bar beside the axes, below and above, and of titles, in inches."""
_SOLID = "0.4"
_FONT = 8
_SHADES, _GREYS = 192, 32


class ShownField(NamedTuple):
    """The scalar field that figures of a clip show.

    Attributes:
        values: at the nodes [F, N].
        label: of the colour bar.
        colours: the name of a colour map.
        limits: of the colour bar.
        extend: whether values lie beyond the limits, in matplotlib's words.
    """

    values: FloatArray
    label: str
    colours: str
    limits: tuple[float, float]
    extend: Literal["neither", "both"]


def shown_field(clip: Clip) -> ShownField:
    """The density of smoke, or the vorticity of a flow past a cylinder in units of U / D."""
    fields = clip.fields.astype(np.float64)
    if isinstance(clip.scene, Plume):
        return ShownField(fields[..., 2], "density", "Blues", (0.0, 1.0), "neither")
    values = vorticity(clip.mesh, fields[..., :2]) * clip.scene.time_unit
    return ShownField(values, r"vorticity $\omega D / U$", "RdBu_r", (-4.0, 4.0), "both")


def plot_clip(clip: Clip, frames: Sequence[int] = (0,)) -> Figure:
    """A figure with some frames of a clip on one colour scale.

    Axes are in metres and the times above them in seconds. Frames of long domains stand one below
    the other, those of others side by side.
    """
    return plot_clips({str(clip.scene): clip}, frames)


def plot_clips(clips: Mapping[str, Clip], frames: Sequence[int]) -> Figure:
    """A figure with the same frames of several clips of one subject, with a title for each."""
    figure, _ = _plot(clips, frames)
    return figure


def figure_image(figure: Figure, width: int = 640) -> Image.Image:
    """A figure of clips as an image, ``width`` pixels wide."""
    return _image(_drawn(figure, width), _palette(figure))


def film(clip: Clip, width: int = 640) -> list[Image.Image]:
    """Each frame as an image, all with one colour scale and one palette.

    The figure is drawn once, and then only field and time anew for each frame.
    """
    figure, (panel,) = _plot({str(clip.scene): clip}, [0])
    changing = (panel.mesh, panel.time)
    for artist in changing:
        artist.set_animated(True)
    canvas, palette, found = _drawn(figure, width), _palette(figure), []
    background = canvas.copy_from_bbox(figure.bbox)
    for values, time in zip(shown_field(clip).values, clip.times, strict=True):
        canvas.restore_region(background)
        panel.mesh.set_array(values)
        panel.time.set_text(_stamp(time))
        for part in (*changing, *panel.axes.spines.values()):
            panel.axes.draw_artist(part)
        found.append(_image(canvas, palette))
    return found


class _Panel(NamedTuple):
    axes: Axes
    mesh: TriMesh
    time: Annotation


def _plot(clips: Mapping[str, Clip], frames: Sequence[int]) -> tuple[Figure, list[_Panel]]:
    length, height = next(iter(clips.values())).scene.size
    across = length <= 2 * height  # whether frames stand side by side
    columns = len(frames) if across else 1
    rows = len(clips) * len(frames) // columns
    panel = (_WIDTH - _BESIDE) / columns * height / length
    size = (_WIDTH, rows * (panel + _ABOVE) + len(clips) * _TITLE + _BELOW)
    figure = Figure(figsize=size, layout="compressed")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    fields = {name: shown_field(clip) for name, clip in clips.items()}
    panels = [
        _panel(axes, clips[name], fields[name], frame)
        for axes, (name, frame) in zip(
            grid.flat, [(name, frame) for name in clips for frame in frames], strict=True
        )
    ]
    for row in grid:
        row[0].set_ylabel("y [m]", fontsize=_FONT)
    for axes in grid[-1]:
        axes.set_xlabel("x [m]", fontsize=_FONT)
    for axes, name in zip(grid.flat[:: len(frames)], clips, strict=True):
        axes.set_title(name, loc="left", fontsize=_FONT, pad=14)
    shown = fields[name]
    bar = figure.colorbar(panels[0].mesh, ax=grid, extend=shown.extend, aspect=20 * rows, pad=0.02)
    bar.set_label(shown.label, fontsize=_FONT)
    bar.ax.tick_params(labelsize=_FONT)
    return figure, panels


def _panel(axes: Axes, clip: Clip, field: ShownField, frame: int) -> _Panel:
    low, high = field.limits
    length, height = clip.scene.size
    x, y = clip.mesh.nodes.T
    mesh = axes.tripcolor(
        x, y, field.values[frame], triangles=clip.mesh.triangles,
        shading="gouraud", cmap=field.colours, vmin=low, vmax=high,
    )  # fmt: skip
    axes.set(aspect="equal", facecolor=_SOLID, xlim=(0, length), ylim=(0, height))
    axes.tick_params(labelsize=_FONT)
    time = axes.annotate(
        _stamp(clip.times[frame]), (1, 1), (0, 3),
        xycoords="axes fraction", textcoords="offset points",
        fontsize=_FONT, horizontalalignment="right",
    )  # fmt: skip
    return _Panel(axes, mesh, time)


def _stamp(seconds: float) -> str:
    return f"t = {seconds:.3f} s"


def _drawn(figure: Figure, width: int) -> FigureCanvasAgg:
    """The figure on a canvas that is so many pixels wide."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(width / _WIDTH)
    canvas.draw()
    return canvas


def _image(canvas: FigureCanvasAgg, palette: Image.Image) -> Image.Image:
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    return image.quantize(palette=palette, dither=Image.Dither.NONE)


def _palette(figure: Figure) -> Image.Image:
    """An image with a palette: the figure's colour map, and greys for text and solids."""
    (mesh,) = figure.axes[0].collections
    shades = mesh.get_cmap()(np.linspace(0, 1, _SHADES))[:, :3]
    greys = np.repeat(np.linspace(0, 1, _GREYS)[:, None], 3, axis=1)
    palette = Image.new("P", (1, 1))
    palette.putpalette((np.concatenate([shades, greys]) * 255).round().astype(np.uint8).tobytes())
    return palette
