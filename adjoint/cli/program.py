"""The overview of the command ``adjoint``."""

from samplers.cli.common.program import Program

PROGRAM = Program(
    "adjoint",
    "adjoint.cli",
    {
        "Learning from a reward": ("finetune", "rewards"),
        "The score of a network": ("residual", "gap"),
    },
    purpose="Gradients through sampling: fine-tuning by a reward, and the quality of a score.",
    tour="""\
A tour:
  adjoint rewards                                  list what images can be rewarded for
  adjoint finetune --config examples/effects/bold.toml
                                                   optimise what the file says; the same command
                                                   resumes an interrupted run
  accelerate launch -m adjoint.finetune --config examples/effects/bold.toml
                                                   the same, on all devices of the machine
  adjoint residual assets/digits --output residual.png
                                                   how far a network is from the score of any
                                                   diffusion process, at each noise level
  adjoint gap assets/digits --output gap.png       how far its ODE samples are from its SDE samples
""",
)
