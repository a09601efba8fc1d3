"""The program ``samplers``."""

from __future__ import annotations

from samplers.cli.common.program import Program

PROGRAM = Program(
    "samplers",
    "samplers.cli",
    {
        "Sampling": ("sample", "compare"),
        "Inverse problems and restoration": ("inpaint", "colorize", "sharpen", "restore"),
        "Probability flow": ("likelihood", "encode", "decode", "interpolate"),
        "Samplers": ("list", "show", "fit-grid", "tune"),
    },
    purpose="Sample from diffusion models with any sampler, and inspect the samplers.",
    tour="""\
A tour:
  samplers list                                   every sampler: order, noise, cost, reference
  samplers show dpmpp-2m --steps 5                its equation and its tableau
  samplers sample assets/digits --label 3 --guidance 1.5 --steps 15 --output digits.png
                                                  sixteen threes in one image
  samplers sample assets/digits --seeds 0-999 --batch-size 100 --output digits/
                                                  a folder of single images; an interrupted job
                                                  continues when the command is repeated
  accelerate launch -m samplers sample assets/digits --seeds 0-999 --output digits/
                                                  the same images on all GPUs of the machine
  samplers compare assets/digits --samplers ddim,heun,dpmpp-2m --nfe 5,10,20 --output compare.png
                                                  a figure of samplers side by side
  samplers inpaint assets/digits three.png --mask mask.png --output completed.png
                                                  fill in the masked region
  samplers restore assets/restore rainy.png --task rainy --output dry.png
                                                  remove the rain from a photograph
  samplers fit-grid assets/digits --steps 5 --output fitted/
                                                  noise levels of five steps for this network
  samplers tune assets/digits --nfe 5 --output tuned/
                                                  a sampler of five evaluations for this network
  samplers interpolate assets/digits --seeds 0,1 --label 3 --output strip.png
                                                  from one three to another
""",
)
