"""``adjoint residual``: the Fokker-Planck residual of a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from samplers.cli.common.errors import named_failures
from samplers.cli.common.options import ImageOptions, ModelOptions, NoClassOptions
from samplers.cli.common.output import check_png, prepare_folder, write
from samplers.cli.common.processes import join
from samplers.cli.common.program import argument, changed, command, option
from samplers.cli.common.text import aligned
from samplers.cli.common.values import PATH, POSITIVE, POSITIVE_NUMBER

if TYPE_CHECKING:
    from torch import Tensor

    from adjoint.fokker_planck import ResidualLevel
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
gradient: compare only numbers of one dtype.
"""
NUM_IMAGES = 16
LOWEST, HIGHEST = 0.02, 50.0
"""Default range of noise levels, as far as the network was trained for them."""


@dataclass(frozen=True, kw_only=True)
class ResidualOptions:
    """What is measured."""

    section: ClassVar[str] = "Measurement"

    levels: int = option("--levels", type=POSITIVE, default=12, help="Noise levels, two or more.")
    probes: int = option("--probes", type=POSITIVE, default=4, help="Random probes, two or more.")
    sigma_min: float | None = option(
        "--sigma-min",
        type=POSITIVE_NUMBER,
        metavar="S",
        show_default=f"{LOWEST:g}",
        help="Lowest noise level, as sigma / alpha.",
    )
    sigma_max: float | None = option(
        "--sigma-max",
        type=POSITIVE_NUMBER,
        metavar="S",
        show_default=f"{HIGHEST:g}",
        help="Highest noise level, as sigma / alpha.",
    )

    def check(self) -> None:
        """Raise ValueError for what cannot be measured."""
        if self.levels < 2:
            raise ValueError("--levels is 1, which shows no course; take --levels 2 or more.")
        if self.probes < 2:
            raise ValueError("--probes is 1, which biases the residual; take --probes 2 or more.")


class PreciseModelOptions(ModelOptions, section="Computation"):
    """A checkpoint of which derivatives are taken."""

    dtype: str = changed(ModelOptions, "dtype", default="float64")


@command(_EXAMPLES)
def run(
    *,
    model: PreciseModelOptions,
    images: tuple[Path, ...] = argument("[IMAGES]...", type=PATH, nargs=-1),
    conditions: NoClassOptions,
    count: ImageOptions,
    residual: ResidualOptions,
    output: Path = option("--output", type=PATH, required=True, help="Figure, NAME.png."),
) -> None:
    """Measure how far a network is from the score of a diffusion process.

    IMAGES are files and folders to add noise to; without any, the network samples them.
    """
    check_png(output, "the figure")
    residual.check()
    if model.dtype not in ("float32", "float64"):
        raise ValueError(
            f"Derivatives in {model.dtype} are rounding errors; take --dtype float64 or float32."
        )
    if not join(model.device).main:
        return
    with named_failures("take fewer images by --num-images"):
        measurement = _plan(model, images, conditions, count, residual)
        prepare_folder(output.parent)
        levels, estimator = measurement.levels()
    write(_figure(levels), output, {"estimator": estimator, "dtype": model.dtype})
    _report(levels, estimator, model.dtype)
    print(f"-> {output}")


class Measurement(NamedTuple):
    """Everything that a run does: a model at clean samples x0, and noise levels."""

    model: Denoiser
    x0: Tensor
    conditions: dict[str, Any]
    rhos: list[float]
    probes: int
    seed: int

    def levels(self) -> tuple[list[ResidualLevel], str]:
        """The residual at each noise level, and the estimator."""
        import torch
        from tqdm.auto import tqdm

        from adjoint import residual_profile

        with torch.no_grad(), tqdm(total=len(self.rhos), unit="level", disable=None) as bar:
            return residual_profile(
                self.model,
                self.x0,
                self.rhos,
                conditions=self.conditions,
                probes=self.probes,
                seed=self.seed,
                tick=bar.update,
            )


def _plan(
    model: ModelOptions,
    images: Sequence[Path],
    conditions: NoClassOptions,
    count: ImageOptions,
    options: ResidualOptions,
) -> Measurement:
    import torch

    from samplers.cli.common.checkpoints import labels_of, open_network

    checkpoint = open_network(model)
    rhos = _noise_levels(options, checkpoint)
    with torch.no_grad():
        clean, sampled = _clean(images, conditions, count, checkpoint)
        labels = sampled or labels_of(conditions, checkpoint, len(clean))
        x0 = checkpoint.encode(clean)
    guidance = 1.0 if conditions.guidance is None else conditions.guidance
    denoiser = checkpoint.denoiser(guidance, conditions.guidance_rescale or 0.0)
    given = checkpoint.conditions(labels)
    return Measurement(denoiser, x0, given, rhos, options.probes, count.seed)


def _clean(
    images: Sequence[Path],
    conditions: NoClassOptions,
    count: ImageOptions,
    checkpoint: NetworkCheckpoint,
) -> tuple[Tensor, tuple[int, ...] | None]:
    """Images without noise [B, C, H, W], and their classes if they were sampled with such."""
    import torch

    from adjoint.cli.opening import labels_in_turn, read_levels
    from samplers.checkpoint import Recipe
    from samplers.images.pixels import values_of

    if images:
        levels = torch.cat(read_levels(images, checkpoint.image_shape))
        return values_of(levels).to(checkpoint.device, checkpoint.dtype), None
    seeds = count.chosen_seeds(NUM_IMAGES)
    labels = labels_in_turn(conditions, checkpoint, len(seeds))
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


def _report(levels: Sequence[ResidualLevel], estimator: str, dtype: str) -> None:
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
    form = ", of the gradient's form" if estimator == "pullback" else ""
    print(f"root mean squares by {estimator} derivatives in {dtype}{form}")
