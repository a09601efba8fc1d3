r"""Layer 1. What a network predicts, brought to one internal form at the door.

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

on any schedule. All are linear, so the door is two numbers a point: ``x_0 = a x + b o``.
No sampler sees anything but the prediction of x_0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from samplers.schedule import Point, Schedule

PredictionType = Literal["epsilon", "sample", "v_prediction", "flow", "score"]

PREDICTION_TYPES: tuple[str, ...] = get_args(PredictionType)

Correction = Callable[[Tensor], Tensor]
"""A change of the predicted x_0 before it is used, such as clipping to the range of pixels."""


class Door(NamedTuple):
    """The two numbers of ``x_0 = of_x * x + of_output * output``, float64, one pair a point."""

    of_x: Tensor
    of_output: Tensor


@dataclass(frozen=True)
class EDMOutput:
    r"""The door of a network F inside EDM's preconditioning, told ``c_in y`` with y = x / alpha.

    .. math:: x_0 = c_{skip} \, y + sign \cdot c_{out} F

    with ``c_skip = s^2 / (rho^2 + s^2)``, ``c_out = rho s / sqrt(rho^2 + s^2)`` and
    s = ``sigma_data`` (Karras et al. 2022, table 1, https://arxiv.org/abs/2206.00364).
    """

    sigma_data: float
    sign: float = 1.0

    def __call__(self, at: Point) -> Door:
        norm = at.sigma.square() + (self.sigma_data * at.alpha).square()
        of_output = self.sign * self.sigma_data * at.sigma / norm.sqrt()
        return Door(self.sigma_data**2 * at.alpha / norm, of_output)


Prediction = PredictionType | Callable[[Point], Door]
"""What a network predicts: the name of a kind, or the door itself."""


def per_sample(numbers: Tensor, like: Tensor) -> Tensor:
    """Numbers [B] as [B, 1, ..., 1], to be multiplied with ``like`` [B, ...], of its dtype and on
    its device."""
    return numbers.to(like).reshape(-1, *[1] * (like.ndim - 1))


def check_kind(kind: str) -> None:
    """Raise ValueError unless ``kind`` names a prediction type."""
    if kind not in PREDICTION_TYPES:
        raise ValueError(
            f"The prediction type is {kind!r}; it must be one of {', '.join(PREDICTION_TYPES)}."
        )


def door(kind: Prediction, at: Point) -> Door:
    """The door from a network output to x_0 at ``at``.

    Raises ValueError for an eps- or score-network at alpha = 0: there x is the noise itself and
    says nothing of x_0.
    """
    if not isinstance(kind, str):
        return kind(at)
    check_kind(kind)
    if kind in ("epsilon", "score") and bool((at.alpha == 0).any()):
        raise ValueError(
            f"A network that predicts {kind!r} was asked at alpha = 0, where its output holds "
            "no information on the data; start the grid at a smaller sigma_max."
        )
    one = torch.ones_like(at.alpha)
    match kind:
        case "epsilon":
            return Door(one / at.alpha, -at.sigma / at.alpha)
        case "sample":
            return Door(torch.zeros_like(one), one)
        case "v_prediction":
            norm = at.alpha.square() + at.sigma.square()
            return Door(at.alpha / norm, -at.sigma / norm)
        case "flow":
            total = at.alpha + at.sigma
            return Door(one / total, -at.sigma / total)
        case "score":
            return Door(one / at.alpha, at.sigma.square() / at.alpha)


def target(kind: PredictionType, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What a network of this kind should predict; ``alpha``, ``sigma`` broadcast against ``x0``."""
    check_kind(kind)
    match kind:
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


def clip(limit: float) -> Correction:
    """Clip the predicted x_0 to [-limit, limit]."""
    if not limit > 0:
        raise ValueError(f"The clipping range is {limit}; it must be positive.")
    return lambda x0: x0.clamp(-limit, limit)


def dynamic_threshold(ratio: float, max_value: float) -> Correction:
    """Clip each sample at its own quantile ``ratio`` of |x_0| and rescale it to [-1, 1].

    The quantile is held between 1 and ``max_value`` (Saharia et al. 2022, section 2.3,
    https://arxiv.org/abs/2205.11487).
    """
    if not 0 < ratio <= 1 or not max_value >= 1:
        raise ValueError(
            f"Dynamic thresholding with ratio {ratio} and maximum {max_value}; "
            "need 0 < ratio <= 1 and a maximum of at least 1."
        )

    def threshold(x0: Tensor) -> Tensor:
        flat = x0.flatten(1)
        limit = torch.quantile(flat.abs(), ratio, dim=1, keepdim=True).clamp(1, max_value)
        return (torch.minimum(torch.maximum(flat, -limit), limit) / limit).reshape(x0.shape)

    return threshold


ConditionalModel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A network with a condition: (x [B, ...], t [B], condition [B, ...]) -> output like x."""


def classifier_free_guidance(
    model: ConditionalModel,
    condition: Tensor,
    null: Tensor,
    scale: float,
    rescale: float = 0.0,
) -> Callable[[Tensor, Tensor], Tensor]:
    r"""A model that is guided towards ``condition`` and away from ``null``, in one doubled call.

    .. math:: o = o_{null} + w \, (o_{cond} - o_{null})

    (Ho and Salimans 2022, eq. 6 with w = 1 + their w, https://arxiv.org/abs/2207.12598). A share
    ``rescale`` of the result is brought back to the standard deviation of o_cond, sample by
    sample (Lin et al. 2023, section 3.4, https://arxiv.org/abs/2305.08891). ``scale`` = 1 is the
    conditional model itself, at half the cost.
    """
    if not 0 <= rescale <= 1:
        raise ValueError(f"The guidance rescale is {rescale}; it must lie between 0 and 1.")
    if scale == 1:
        return lambda x, t: model(x, t, condition)
    both = torch.cat([null, condition])

    def guided(x: Tensor, t: Tensor) -> Tensor:
        unconditional, conditional = model(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
        output = unconditional + scale * (conditional - unconditional)
        return _rescaled(output, conditional, rescale) if rescale else output

    return guided


def _rescaled(output: Tensor, like: Tensor, share: float) -> Tensor:
    dims = tuple(range(1, output.ndim))
    ratio = like.std(dims, keepdim=True) / output.std(dims, keepdim=True)
    return (1 - share + share * ratio) * output


Classifier = Callable[[Tensor, Tensor], Tensor]
"""A classifier of noisy samples: (x [B, ...], t [B]) -> logits [B, classes]."""


def classifier_guidance(
    model: Callable[[Tensor, Tensor], Tensor],
    classifier: Classifier,
    label: Tensor,
    scale: float,
    schedule: Schedule,
    prediction: Prediction,
) -> Callable[[Tensor, Tensor], Tensor]:
    r"""A model that is guided towards ``label`` by the gradient of a classifier.

    .. math:: \varepsilon' = \varepsilon - w \, \sigma_t \nabla_x \log p(label \mid x, t)

    (Song et al. 2021, section 5, https://arxiv.org/abs/2011.13456; Dhariwal and Nichol 2021,
    eq. 14, https://arxiv.org/abs/2105.05233), carried over to what the model predicts. With the
    exact classifier, ``scale`` w = 1 gives the exact conditional model.

    Args:
        label: the class of each sample, [B], or one for all, [1].

    The gradient is taken under ``torch.no_grad`` too. At alpha = 0 it says nothing, and the model
    raises ValueError: start the grid at a smaller ``sigma_max``.
    """

    asked = recorded(classifier)

    def guided(x: Tensor, t: Tensor) -> Tensor:
        gain = scale * score_gain(prediction, points_at(schedule, t, x))
        wanted = label.expand(len(x))
        log_p, pull = value_and_pullback(lambda x: _log_probability(asked(x, t), wanted), x)
        return model(x, t) + gain.to(x) * pull(torch.ones_like(log_p))

    return guided


def _log_probability(logits: Tensor, label: Tensor) -> Tensor:
    return torch.log_softmax(logits, dim=1).gather(1, label[:, None]).squeeze(1)


def points_at(schedule: Schedule, t: Tensor, like: Tensor) -> Point:
    """The points at times t [B], their numbers shaped to broadcast against ``like`` [B, ...].

    They are float64 on the CPU, as all of a schedule.
    """
    times = t.to("cpu", torch.float64).reshape(-1, *(1 for _ in like.shape[1:]))
    return schedule.point(times)


def score_gain(kind: Prediction, at: Point) -> Tensor:
    r"""How much the output changes with the score: ``d output = gain * d score``.

    ``x_0 = (x + sigma^2 score) / alpha``, so the gain is ``sigma^2 / alpha`` divided by what stands
    before the output in the door. Raises ValueError at alpha = 0, where x_0 does not follow from
    the score.
    """
    if bool((at.alpha == 0).any()):
        raise ValueError(
            "Guidance by a gradient was asked for at alpha = 0, where the score says nothing of "
            "the data; start the grid at a smaller sigma_max."
        )
    return at.sigma.square() / (at.alpha * door(kind, at).of_output)


def recorded(network: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The network, for :func:`value_and_pullback`: it raises ValueError if it records nothing."""

    def call(x: Tensor, *given: Tensor) -> Tensor:
        output = network(x, *given)
        if not output.requires_grad:
            raise ValueError(
                "The network's gradient is needed here, but its output was not recorded as a "
                "function of x; give the network without torch.no_grad() and detach() in it (the "
                "call as a whole may stand under torch.no_grad())."
            )
        return output

    return call


def value_and_pullback(
    function: Callable[[Tensor], Tensor], x: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """``function(x)``, and the product of a cotangent with its Jacobian at x.

    This works under ``torch.no_grad`` too. Where the caller records a graph, the value and the
    product are part of it if anything that went into them is. Raises ValueError under
    ``torch.inference_mode``, where nothing can be recorded.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "The network's gradient is needed here, which torch.inference_mode() can't give; use "
            "torch.no_grad()."
        )
    if torch.is_grad_enabled():
        value, products = torch.func.vjp(function, x)[:2]
        return value, lambda cotangent: products(cotangent)[0]
    # Plain autograd, because gradient checkpointing of a large network knows no torch.func.
    with torch.enable_grad():
        at = x.detach().requires_grad_()
        value = function(at)

    def pull(cotangent: Tensor) -> Tensor:
        (product,) = torch.autograd.grad(value, at, cotangent, retain_graph=True)
        return product

    return value.detach(), pull
