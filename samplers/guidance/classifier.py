"""Guidance by the gradient of a classifier of noisy samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from samplers.denoiser import Denoiser
from samplers.prediction import points_at, score_gain
from samplers.pullback import recorded, value_and_pullback

Classifier = Callable[[Tensor, Tensor], Tensor]
"""A classifier of noisy samples: (x [B, ...], t [B]) -> logits [B, classes]."""


def classifier_guidance(
    model: Denoiser, classifier: Classifier, label: Tensor, scale: float
) -> Denoiser:
    r"""A denoiser guided towards ``label`` by the gradient of a classifier.

    .. math:: \varepsilon' = \varepsilon - w \, \sigma_t \nabla_x \log p(label \mid x, t)

    (Song et al. 2021, section 5, https://arxiv.org/abs/2011.13456; Dhariwal and Nichol 2021,
    eq. 14, https://arxiv.org/abs/2105.05233), converted to what the model predicts. With the
    exact classifier, ``scale`` w = 1 gives the exact conditional model.

    Args:
        classifier: ``classifier(x, t)`` -> logits, at the schedule's own time t [B].
        label: the class of each sample, [B], or one for all, [1].

    The gradient is computed under ``torch.no_grad`` too. At alpha = 0 the score holds no
    information, and the evaluation raises ValueError: start the grid at a smaller ``sigma_max``.
    """
    differentiable = recorded(classifier)

    def guided(x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
        gain = scale * score_gain(model.prediction, points_at(model.schedule, t, x))
        wanted = label.expand(len(x))
        log_p, pull = value_and_pullback(
            lambda x: _log_probability(differentiable(x, t), wanted), x
        )
        return model(x, t, **conditions) + gain.to(x) * pull(torch.ones_like(log_p))

    return model.wrapped(guided)


def _log_probability(logits: Tensor, label: Tensor) -> Tensor:
    return torch.log_softmax(logits, dim=1).gather(1, label[:, None]).squeeze(1)
