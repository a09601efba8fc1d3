"""Layer 5. The scale of a model's data, on which the default sampler and grid depend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from samplers.checks import check_numbers
from samplers.denoiser import Denoiser, check_conditions, select_rows
from samplers.sampling import root_mean_square, sample
from samplers.schedule import Schedule

_STEPS = 20
_SAMPLES = 8
_NEARLY_CLEAN = 0.01


@torch.no_grad()
def measure_data_scale(
    model: Denoiser, x_T: Tensor, conditions: Mapping[str, Any] | None = None
) -> float:
    """The root mean square of a model's data, from a few samples.

    ``model.with_data_scale(measure_data_scale(model, x_T))`` is the model as the default sampler
    and grid need it, if its data are neither pixels in [-1, 1] nor latents of unit variance.

    Args:
        model: the network with its noise schedule.
        x_T: initial noise [B, ...] at the noisiest level, of which the first 8 rows are used.
        conditions: given to the network by name, with a row for each sample, or shared.

    Takes 20 network evaluations of each sample. Raises ValueError for noise without a row, and for
    samples that are zero.
    """
    check_numbers("x_T", x_T)
    if x_T.ndim == 0 or not x_T.numel():
        raise ValueError(f"x_T is of shape {tuple(x_T.shape)}; give a row for each sample.")
    check_conditions(conditions or {}, len(x_T))
    rows = torch.arange(min(_SAMPLES, len(x_T)))
    given = select_rows(conditions or {}, rows)
    noise = x_T[rows.to(x_T.device)]
    # Neither this sampler nor its grid knows the scale.
    x_0 = sample(
        model,
        noise,
        sampler="dpmpp-2m",
        grid="log-snr",
        steps=_STEPS,
        sigma_min=_last_level(model.schedule),
        conditions=given,
    )
    found = root_mean_square(x_0)
    if not found > 0:
        raise ValueError("The samples are zero; the scale of the data can't be measured by them.")
    return found


def _last_level(schedule: Schedule) -> float | None:
    """A positive noise level, where the schedule itself goes down to clean data."""
    if not schedule.cleanest.clean:
        return None
    near = schedule.at_fraction(torch.tensor(_NEARLY_CLEAN, dtype=torch.float64))
    return float(schedule.point(near).rho)
