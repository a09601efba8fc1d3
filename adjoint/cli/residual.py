"""``adjoint residual``: the Fokker-Planck residual of a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from samplers.cli.common.errors import evaluating
from samplers.cli.common.options import ImageOptions, ModelOptions, NoClassOptions, OverwriteOptions
from samplers.cli.common.output import check_png, prepare_folder, write
from samplers.cli.common.program import argument, changed, command, option
from samplers.cli.common.text import aligned
from samplers.cli.common.values import OUTPUT, PATH, POSITIVE, POSITIVE_NUMBER

if TYPE_CHECKING:
    from torch import Tensor

    from adjoint.fokker_planck import ResidualLevel, ResidualMethod
    from samplers import Denoiser
    from samplers.checkpoint import NetworkCheckpoint
    from samplers.images.figures import Figure

_EXAMPLES = """\
Examples:
  adjoint residual assets/digits --output residual.png
  adjoint residual assets/digits digits/ --label 3 --levels 20 --output threes.png

Where the residual is zero, samples of the ODE and of the SDE have one distribution. It is measured
at noisy images, in units of the images, and printed with its standard error beside its two parts,
which cancel for an exact network. In float32 second differences are rounding errors, so --dtype
float32 measures the residual of the gradient's form instead, which differs if the network is not a
gradient: compare only numbers of one dtype. A network with kinks, such as those of ReLU, is
measured by second differences, and the square of its residual grows as one over their step, which
is printed.
"""
NUM_IMAGES = 16
LOWEST, HIGHEST = 0.02, 50.0
"""Default range of noise levels, as far as the network was trained for them."""


class ResidualOptions(
    NoClassOptions, ImageOptions, ModelOptions, OverwriteOptions, section="Measurement"
):
    images: tuple[Path, ...] = argument(
        "[IMAGES]...",
        type=PATH,
        nargs=-1,
        help="Images to add noise to, and folders; the network samples some if there are none.",
    )
    levels: int = option(type=POSITIVE, default=12, help="Noise levels, two or more.")
    probes: int = option(type=POSITIVE, default=4, help="Random probes, two or more.")
    sigma_min: float | None = option(
        type=POSITIVE_NUMBER,
        metavar="S",
        show_default=f"{LOWEST:g}",
        help="Lowest noise level, in units of sigma/alpha.",
    )
    sigma_max: float | None = option(
        type=POSITIVE_NUMBER,
        metavar="S",
        show_default=f"{HIGHEST:g}",
        help="Highest noise level, in units of sigma/alpha.",
    )
    num_images: int | None = changed(
        ImageOptions, "num_images", show_default=f"{NUM_IMAGES}, or as --seeds"
    )
    dtype: str = changed(ModelOptions, "dtype", default="float64")
    output: Path = option(
        type=OUTPUT, required=True, metavar="NAME.png", help="Figure to write.", section="Output"
    )


@command(_EXAMPLES, single_process=True)
def run(options: ResidualOptions) -> None:
    """Measure how far a network is from the score of a diffusion process."""
    check_png(options.output, "the figure")
    options.check_checkpoint()
    _check(options)
    with evaluating("take fewer images by --num-images"):
        measurement = _plan(options)
        prepare_folder(options.output.parent)
        levels, method = measurement.levels()
    about: dict[str, Any] = {"estimator": method.estimator, "dtype": options.dtype}
    if method.smoothing is not None:
        about |= {"kinks": list(method.kinks), "smoothing": method.smoothing}
    write(_figure(levels), options.output, about)
    _report(levels, method, options)


def _check(options: ResidualOptions) -> None:
    """Raise ValueError for what cannot be measured."""
    if options.levels < 2:
        raise ValueError("--levels is 1; a curve needs 2 noise levels or more.")
    if options.probes < 2:
        raise ValueError("--probes is 1, which biases the residual; take --probes 2 or more.")
    if options.dtype not in ("float32", "float64"):
        raise ValueError(
            f"Derivatives in {options.dtype} are rounding errors; take --dtype float64 or float32."
        )


class Measurement(NamedTuple):
    """Everything that a run does: a model at clean samples x0, and noise levels."""

    model: Denoiser
    x0: Tensor
    conditions: dict[str, Any]
    rhos: list[float]
    probes: int
    seed: int

    def levels(self) -> tuple[list[ResidualLevel], ResidualMethod]:
        """The residual at each noise level, and how it was estimated."""
        from tqdm.auto import tqdm

        from adjoint import residual_profile

        with tqdm(total=len(self.rhos), unit="level", disable=None) as bar:
            return residual_profile(
                self.model,
                self.x0,
                self.rhos,
                conditions=self.conditions,
                probes=self.probes,
                seed=self.seed,
                tick=bar.update,
            )


def _plan(options: ResidualOptions) -> Measurement:
    from samplers.cli.common.checkpoints import labels_of, open_network, recipe_from

    checkpoint = open_network(options)
    rhos = _noise_levels(options, checkpoint)
    clean, sampled = _clean(options, checkpoint)
    labels = sampled or labels_of(options, checkpoint, len(clean))
    model = checkpoint.guided(recipe_from(options))
    x0, conditions = checkpoint.encode(clean), checkpoint.conditions(labels)
    return Measurement(model, x0, conditions, rhos, options.probes, options.seed)


def _clean(
    options: ResidualOptions, checkpoint: NetworkCheckpoint
) -> tuple[Tensor, tuple[int, ...] | None]:
    """Images without noise [B, C, H, W], and their classes if they were sampled with such."""
    import torch

    from samplers.checkpoint import Recipe
    from samplers.cli.common.checkpoints import labels_in_turn
    from samplers.images.inputs import read_inputs
    from samplers.images.pixels import values_of

    if options.images:
        inputs = read_inputs(options.images, checkpoint.image_shape)
        levels = torch.cat([image.levels for image in inputs])
        return values_of(levels).to(checkpoint.device, checkpoint.dtype), None
    seeds = options.chosen_seeds(NUM_IMAGES)
    turn = labels_in_turn(options, checkpoint, len(seeds))
    labels = None if turn is None else tuple(turn[i % len(turn)] for i in range(len(seeds)))
    recipe = checkpoint.settle(Recipe(steps=20))
    return checkpoint.draw(recipe, seeds, labels, lambda: None).clamp(-1, 1), labels


def _noise_levels(options: ResidualOptions, checkpoint: NetworkCheckpoint) -> list[float]:
    """Geometrically spaced noise levels, within those that the network was trained for."""
    from samplers import make_grid

    schedule = checkpoint.settings.schedule
    # Differences reach a little beyond a level, where the network must be trained, too.
    least, most = 1.1 * float(schedule.cleanest.rho), 0.9 * float(schedule.noisiest.rho)
    low = options.sigma_min or max(LOWEST, least)
    high = options.sigma_max or min(HIGHEST, most)
    if not least <= low < high <= most:
        raise ValueError(
            f"The noise levels go from {low:g} to {high:g}; they must rise and lie between "
            f"{least:.3g} and {most:.3g}, a little within those that the network was trained for."
        )
    grid = make_grid(schedule, options.levels - 1, sigma_min=low, sigma_max=high, final="sigma_min")
    levels: list[float] = grid.points.rho.flip(0).tolist()
    return levels


# ------------------------------------------------------------------------------ for the reader


def _figure(levels: Sequence[ResidualLevel]) -> Figure:
    from samplers.images.figures import curves

    lines = {
        "residual": [(at.rho, at.rms) for at in levels],
        "advective part": [(at.rho, at.advective) for at in levels],
        "diffusive part": [(at.rho, at.diffusive) for at in levels],
    }
    spans = [(_root(at.squared - at.error), _root(at.squared + at.error)) for at in levels]
    known = {"residual": spans} if all(math.isfinite(at.error) for at in levels) else {}
    return curves(lines, "noise level sigma / alpha", "root mean square", known, log_x=True)


def _root(squared: float) -> float:
    return math.sqrt(max(squared, 0.0))


def _report(
    levels: Sequence[ResidualLevel], method: ResidualMethod, options: ResidualOptions
) -> None:
    rows = [("sigma/alpha", "residual", "squared, with its error", "advective", "diffusive")]
    for at in levels:
        error = f" +- {at.error:.2g}" if math.isfinite(at.error) else ""
        rows.append(
            (
                f"{at.rho:.3g}",
                f"{at.rms:.3g}",
                f"{at.squared:.3g}{error}",
                f"{at.advective:.3g}",
                f"{at.diffusive:.3g}",
            )
        )
    print(aligned(rows))
    form = ", of the gradient's form" if method.estimator == "pullback" else ""
    print(
        f"root mean squares by {method.estimator} derivatives in {options.dtype}{form} -> "
        f"{options.output}"
    )
    if method.smoothing is not None:
        print(
            f"The network has kinks ({', '.join(method.kinks)}): its second derivatives are "
            f"averaged over {method.smoothing:g} sigma/alpha, and the squared residual grows as "
            "one over this length."
        )
