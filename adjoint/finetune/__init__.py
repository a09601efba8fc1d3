"""Fine-tuning by a metric: ``accelerate launch -m adjoint.finetune --config FILE``.

A checkpoint draws images, a reward says what they are worth, and its gradient goes back through
the whole sampler to what is optimised: the weights of the network, an adapter of low rank, the
embedding of what is asked for, or the starting noise.

Here live the settings of such a run (``config``), what is optimised (``parts``), the checkpoints as
things with such parts (``models``), and the run with what it writes (``run``, ``results``). The
training loop is :mod:`samplers.training`; ways back and rewards stand beside this folder.
"""

from adjoint.finetune.config import DrawingSettings, FinetuneConfig, Pictures, read_config
from adjoint.finetune.parts import Embedding, LoRA, Noise, Optimised, Weights
from adjoint.finetune.run import Outcome, finetune

__all__ = [
    "DrawingSettings",
    "Embedding",
    "FinetuneConfig",
    "LoRA",
    "Noise",
    "Optimised",
    "Outcome",
    "Pictures",
    "Weights",
    "finetune",
    "read_config",
]
