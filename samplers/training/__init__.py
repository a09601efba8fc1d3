r"""Layer 6. The one training loop: denoisers, classifiers and autoencoders are trained by it alike.

A run is a pure function of its settings. The order of the data, the noise, the times, the dropout,
the learning rate and the decay of the average at a step follow from ``(seed, step)``, so the state
of a run is its step, its weights, their average and the moments of its optimiser: one file,
replaced in one rename. A run killed at any moment goes on from that file, bit for bit as if it had
never stopped (with as many processes, on the same kind of machine, where its kernels are
deterministic).

What is learned is an :data:`Objective`; that of a diffusion model is in ``denoising``. Processes,
devices and mixed precision are the business of ``accelerate``.

Here live its settings (``config``), whose a folder is (``claim``), what it draws (``draws``), what
changes in it (``learner``), what a denoiser learns (``denoising``), its log and the loop itself. No
other loss, no model and no data set belongs here.
"""

from samplers.training.claim import SETTINGS, claim_folder
from samplers.training.config import Precision, TrainingConfig, average_decay, learning_rate
from samplers.training.denoising import (
    LabelDropout,
    WeightingName,
    denoising_loss,
    perturb,
    target_weight,
)
from samplers.training.draws import batch_indices, derived_seed, seeded
from samplers.training.learner import Objective, load_average, trained_state, update_average
from samplers.training.loop import CHECKPOINT, LOG, Every, Samples, train

__all__ = [
    "CHECKPOINT",
    "LOG",
    "SETTINGS",
    "Every",
    "LabelDropout",
    "Objective",
    "Precision",
    "Samples",
    "TrainingConfig",
    "WeightingName",
    "average_decay",
    "batch_indices",
    "claim_folder",
    "denoising_loss",
    "derived_seed",
    "learning_rate",
    "load_average",
    "perturb",
    "seeded",
    "target_weight",
    "train",
    "trained_state",
    "update_average",
]
