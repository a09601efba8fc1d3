"""The commands, and a tour of them."""

from __future__ import annotations

from samplers.cli.common.program import Program

_TOUR = """\
A tour:
  text2pde generate "Water flows past a cylinder of radius 0.05 m at Reynolds number 120" \\
      --output street.gif                        with the bundled model
  text2pde simulate data/cylinder --cases 150    a data set of flows past cylinders
  text2pde show data/cylinder/case-00000.safetensors --output street.gif
  accelerate launch -m text2pde train-autoencoder data/cylinder --output runs/autoencoder
  text2pde encode runs/autoencoder/autoencoder data/cylinder --output runs/latents.safetensors
  accelerate launch -m text2pde train-diffusion runs/latents.safetensors \\
      --autoencoder runs/autoencoder/autoencoder --output runs/diffusion
  text2pde generate "radius 5 cm, Re = 80" --checkpoint runs/diffusion/pipeline --output flow.vtu
  text2pde simulate data/held-out --cases 16 --held-out
  text2pde evaluate data/held-out --training data/cylinder
  text2pde tune --checkpoint runs/diffusion/pipeline --nfe 5 --output tuned/

Commands that simulate, train or tune resume after an interruption. `generate`, `infer`, `evaluate`
and `tune` use the model in assets/cylinder of this repository unless --checkpoint names another.
"""

PROGRAM = Program(
    "text2pde",
    "text2pde.cli",
    {
        "Generation": ("generate", "infer", "evaluate", "tune"),
        "Data": ("simulate", "show"),
        "Training": ("train-autoencoder", "encode", "train-diffusion"),
    },
    purpose="Generate solutions of partial differential equations from text.",
    tour=_TOUR,
)
