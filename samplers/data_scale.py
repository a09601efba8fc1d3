"""Layer 5. The scale of a model's data, on which the default sampler and grid depend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from samplers.checks import check_numbers
from samplers.denoiser import Denoiser, check_conditions, select_rows
from samplers.sampling import root_mean_square, sample

_STEPS = 20
_SAMPLES = 8


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

    Takes 20 network evaluations of each sample.
    """
    check_numbers("x_T", x_T)
    check_conditions(conditions or {}, len(x_T))
    rows = torch.arange(min(_SAMPLES, len(x_T)))
    given = select_rows(conditions or {}, rows)
    noise = x_T[rows.to(x_T.device)]
    # Neither this sampler nor its grid knows the scale.
    x_0 = sample(model, noise, sampler="dpmpp-2m", grid="log-snr", steps=_STEPS, conditions=given)
    return root_mean_square(x_0)
