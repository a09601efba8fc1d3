r"""Layer 1. Prediction types, and their conversion to the prediction of x_0.

With ``x = alpha x_0 + sigma eps`` a network may predict

===============  ==========================  ============================================
kind             target                      x_0 from the output o
===============  ==========================  ============================================
``epsilon``      eps                         (x - sigma o) / alpha
``sample``       x_0                         o
``v_prediction`` v = alpha eps - sigma x_0   (alpha x - sigma o) / (alpha^2 + sigma^2)
``flow``         u = eps - x_0               (x - sigma o) / (alpha + sigma)
``score``        -eps / sigma                (x + sigma^2 o) / alpha
===============  ==========================  ============================================

on any schedule. Every conversion is linear, so it is two numbers at each point: ``x_0 = a x + b
o``. Samplers are given the prediction of x_0 only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from samplers.schedule import Point, Schedule

PredictionType = Literal["epsilon", "sample", "v_prediction", "flow", "score"]

PREDICTION_TYPES: tuple[str, ...] = get_args(PredictionType)

PredictionAlias = Literal[
    "eps", "noise", "x0", "x_0", "x_start", "data", "v", "v-prediction", "flow_prediction",
    "rectified_flow",
]  # fmt: skip
PredictionName = PredictionType | PredictionAlias
"""A prediction type, or its name in another library."""

Correction = Callable[[Tensor], Tensor]
"""A change of the predicted x_0 before it is used, such as clipping to the range of pixels."""


class Conversion(NamedTuple):
    """The coefficients of ``x_0 = of_x * x + of_output * output`` at each point, in float64."""

    of_x: Tensor
    of_output: Tensor


@dataclass(frozen=True)
class EDMOutput:
    r"""The conversion of a network F inside EDM's preconditioning, given ``c_in y``, y = x / alpha.

    .. math:: x_0 = c_{skip} \, y + sign \cdot c_{out} F

    with ``c_skip = s^2 / (rho^2 + s^2)``, ``c_out = rho s / sqrt(rho^2 + s^2)`` and
    s = ``sigma_data`` (Karras et al. 2022, table 1, https://arxiv.org/abs/2206.00364).
    """

    sigma_data: float
    sign: float = 1.0

    def __call__(self, at: Point) -> Conversion:
        norm = at.sigma.square() + (self.sigma_data * at.alpha).square()
        of_output = self.sign * self.sigma_data * at.sigma / norm.sqrt()
        return Conversion(self.sigma_data**2 * at.alpha / norm, of_output)


@dataclass(frozen=True)
class ConsistencyOutput:
    r"""The consistency function of a network F, given ``c_in y`` as EDM's, with y = x / alpha.

    .. math:: f = c_{skip} \, y + c_{out} F

    with ``c_skip = s^2 / ((rho - e)^2 + s^2)``, ``c_out = (rho - e) s / sqrt(rho^2 + s^2)``,
    s = ``sigma_data`` and e = ``sigma_min``, where f = y (Song et al. 2023, appendix C,
    https://arxiv.org/abs/2303.01469). It stands in the place of the prediction of x_0.
    """

    sigma_min: float
    sigma_data: float

    def __call__(self, at: Point) -> Conversion:
        above = at.rho - self.sigma_min
        skip = self.sigma_data**2 / (above.square() + self.sigma_data**2)
        out = above * self.sigma_data / (at.rho.square() + self.sigma_data**2).sqrt()
        return Conversion(skip / at.alpha, out)


Prediction = PredictionName | Callable[[Point], Conversion]
"""What a network predicts: the name of a prediction type, or the conversion to x_0 itself."""


def per_sample(numbers: Tensor, like: Tensor) -> Tensor:
    """Numbers [B] as [B, 1, ..., 1], in the dtype and on the device of ``like`` [B, ...]."""
    return numbers.to(like).reshape(-1, *[1] * (like.ndim - 1))


_ALIASES: dict[PredictionAlias, PredictionType] = {
    "eps": "epsilon",
    "noise": "epsilon",
    "x0": "sample",
    "x_0": "sample",
    "x_start": "sample",
    "data": "sample",
    "v": "v_prediction",
    "v-prediction": "v_prediction",
    "flow_prediction": "flow",
    "rectified_flow": "flow",
}
"""Names of prediction types in other libraries and papers."""


def prediction_type(name: str) -> PredictionType:
    """The prediction type of this name or alias (``eps``, ``x0``, ``v``, ``flow_prediction``, …).

    Raises ValueError for an unknown name.
    """
    known: dict[str, PredictionType] = {kind: kind for kind in get_args(PredictionType)}
    known.update(_ALIASES)  # type: ignore[arg-type]  # literals are strings
    if name not in known:
        raise ValueError(
            f"The prediction type is {name!r}; it must be one of {', '.join(PREDICTION_TYPES)} "
            "(velocities are v_prediction, alpha eps - sigma x_0, or flow, eps - x_0), or a "
            "conversion such as EDMOutput(sigma_data=0.5)."
        )
    return known[name]


def to_data(prediction: Prediction, at: Point) -> Conversion:
    """The conversion of a network output to x_0 at ``at``.

    Raises ValueError for an eps- or score-network at alpha = 0: there x is the noise itself and
    the output holds no information on x_0.
    """
    if not isinstance(prediction, str):
        return prediction(at)
    kind = prediction_type(prediction)
    if kind in ("epsilon", "score") and bool((at.alpha == 0).any()):
        raise ValueError(
            f"A network that predicts {kind!r} was evaluated at alpha = 0, where its output holds "
            "no information on the data; start the grid at a smaller sigma_max."
        )
    one = torch.ones_like(at.alpha)
    match kind:
        case "epsilon":
            return Conversion(one / at.alpha, -at.sigma / at.alpha)
        case "sample":
            return Conversion(torch.zeros_like(one), one)
        case "v_prediction":
            norm = at.alpha.square() + at.sigma.square()
            return Conversion(at.alpha / norm, -at.sigma / norm)
        case "flow":
            total = at.alpha + at.sigma
            return Conversion(one / total, -at.sigma / total)
        case "score":
            return Conversion(one / at.alpha, at.sigma.square() / at.alpha)


def target(kind: PredictionName, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The training target of a prediction type; ``alpha`` and ``sigma`` broadcast against
    ``x0``."""
    match prediction_type(kind):
        case "epsilon":
            return eps
        case "sample":
            return x0
        case "v_prediction":
            return alpha * eps - sigma * x0
        case "flow":
            return eps - x0
        case "score":
            return -eps / sigma


@dataclass(frozen=True)
class Clipping:
    """The correction of :func:`clip`."""

    limit: float

    def __call__(self, x0: Tensor) -> Tensor:
        return x0.clamp(-self.limit, self.limit)


@dataclass(frozen=True)
class DynamicThreshold:
    """The correction of :func:`dynamic_threshold`."""

    ratio: float
    max_value: float

    def __call__(self, x0: Tensor) -> Tensor:
        flat = x0.flatten(1)
        limit = _quantile(flat.abs(), self.ratio).clamp(1, self.max_value)
        return (torch.minimum(torch.maximum(flat, -limit), limit) / limit).reshape(x0.shape)


def _quantile(values: Tensor, ratio: float) -> Tensor:
    """The quantile of each row [B, 1]; that of PyTorch takes no more than 2^24 numbers."""
    place = ratio * (values.shape[1] - 1)
    below = math.floor(place)
    largest = values.topk(values.shape[1] - below, dim=1).values
    above = largest[:, -2:][:, :1]  # the same number again at ratio 1
    return torch.lerp(largest[:, -1:], above, place - below)


def clip(limit: float) -> Correction:
    """Clip the predicted x_0 to [-limit, limit]."""
    if not limit > 0:
        raise ValueError(f"The clipping range is {limit}; it must be positive.")
    return Clipping(limit)


def dynamic_threshold(ratio: float, max_value: float) -> Correction:
    """Clip each sample at its own quantile ``ratio`` of ``|x_0|`` and rescale it to [-1, 1].

    The quantile is held between 1 and ``max_value`` (Saharia et al. 2022, section 2.3,
    https://arxiv.org/abs/2205.11487).
    """
    if not 0 < ratio <= 1 or not max_value >= 1:
        raise ValueError(
            f"Dynamic thresholding with ratio {ratio} and maximum {max_value}; "
            "need 0 < ratio <= 1 and a maximum of at least 1."
        )
    return DynamicThreshold(ratio, max_value)


def points_at(schedule: Schedule, t: Tensor, like: Tensor) -> Point:
    """The points of a schedule at times t [B], shaped to broadcast against ``like`` [B, ...].

    They are float64 on the CPU, like everything of a schedule.
    """
    times = t.to("cpu", torch.float64).reshape(-1, *(1 for _ in like.shape[1:]))
    return schedule.point(times)


def score_gain(kind: Prediction, at: Point) -> Tensor:
    r"""How much the output changes with the score: ``d output = gain * d score``.

    ``x_0 = (x + sigma^2 score) / alpha``, so the gain is ``sigma^2 / alpha`` divided by the
    coefficient of the output in the conversion to x_0. Raises ValueError at alpha = 0, where x_0
    does not follow from the score.
    """
    if bool((at.alpha == 0).any()):
        raise ValueError(
            "Guidance by a gradient is needed at alpha = 0, where the score holds no information "
            "on the data; start the grid at a smaller sigma_max."
        )
    return at.sigma.square() / (at.alpha * to_data(kind, at).of_output)
