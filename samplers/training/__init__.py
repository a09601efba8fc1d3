r"""Layer 6. The training loop of denoisers, classifiers and autoencoders, with exact resume.

A run is a pure function of its settings. The order of the data, the noise, the times, the dropout,
the learning rate and the decay of the average at a step follow from ``(seed, step)``, so the state
of a run is its step, its weights, their average and the moments of its optimiser: one file, written
atomically. A run that is killed at any moment resumes from that file, bit for bit as if it had
never stopped (with as many processes, on the same kind of machine, where its kernels are
deterministic).

What is minimised is an :data:`Objective`; that of a diffusion model is in ``denoising``. Processes,
devices and mixed precision are handled by ``accelerate``.

Here live the settings (``config``), the check that a folder belongs to a run (``claim``), random
numbers (``draws``), the state of a run (``learner``), the loss of denoisers (``denoising``), the
log and the loop. Other losses, models and data sets do not belong here.
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
