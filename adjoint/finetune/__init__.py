"""Reward fine-tuning: ``accelerate launch -m adjoint.finetune --config FILE``.

A checkpoint samples images, a reward scores them, and its gradient is backpropagated through the
whole sampler to what is optimised: the weights of the network, a LoRA adapter, the embedding of the
condition, or the initial noise.

Here live the settings of such a run (``config``), what can be optimised (``trainable``), the
checkpoints as models that can be trained (``models``), and the run with its outputs (``run``,
``results``). The training loop is :mod:`samplers.training`; adjoints and rewards are neighbours of
this package.
"""

from adjoint.finetune.config import (
    FinetuneConfig,
    Previews,
    RewardSettings,
    SamplingSettings,
    read_finetune_config,
)
from adjoint.finetune.penalty import PenaltySettings
from adjoint.finetune.run import FinetuneResult, run_finetuning
from adjoint.finetune.trainable import (
    Optimised,
    OptimiseEmbedding,
    OptimiseLoRA,
    OptimiseNoise,
    OptimiseWeights,
)

__all__ = [
    "FinetuneConfig",
    "FinetuneResult",
    "OptimiseEmbedding",
    "OptimiseLoRA",
    "OptimiseNoise",
    "OptimiseWeights",
    "Optimised",
    "PenaltySettings",
    "Previews",
    "RewardSettings",
    "SamplingSettings",
    "read_finetune_config",
    "run_finetuning",
]
