"""``text2pde tune``: samplers of few evaluations, learned for a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from samplers.cli.common.processes import join
from samplers.cli.common.program import command
from samplers.cli.common.text import counted
from samplers.cli.common.tuning import Subject, TuningOptions, write_tuned
from text2pde.cli.common import PipelineOptions, open_own

if TYPE_CHECKING:
    from text2pde.pipeline import Request, Text2PDEPipeline

_EXAMPLES = """\
Example:
  text2pde tune --nfe 4,8 --output tuned/
  text2pde generate "radius 5 cm, Re = 80" --sampler tuned/cylinder-4.json --output flow.gif

A command that was interrupted continues when it is repeated, to the same file.
"""


class TuneOptions(PipelineOptions, TuningOptions):
    """Which model, and how its samplers are learned."""


@command(_EXAMPLES)
def run(options: TuneOptions) -> None:
    """Learn samplers of few network evaluations for a model.

    They are tuned for captions of scenes that fill the ranges of the training evenly.
    """
    options.check_output(options.checkpoint)
    config = options.config()
    pipe = open_own(options, join(options.device).device)
    write_tuned(options, config, options.checkpoint, _subject(options, pipe))


def _subject(options: TuneOptions, pipe: Text2PDEPipeline) -> Subject:
    import torch

    from samplers.checkpoint.folder import read_folder
    from samplers.tuning import Purpose

    weights = read_folder(options.checkpoint, allow_pickle=False).identity().weights_hash
    words = f"captions of {counted(options.count, 'scene')} ({pipe.config.subject})"
    with torch.no_grad():
        conditions = pipe.conditions(_requests(options, pipe))
    return Subject(
        pipe.guided(options.guidance),
        pipe.noise(options.seeds),
        conditions,
        Purpose(weights, options.guidance, conditions=words, licence=options.licence),
    )


def _requests(options: TuneOptions, pipe: Text2PDEPipeline) -> list[Request]:
    from text2pde.pipeline import Request

    subject = pipe.subject
    scenes = subject.sample(options.count, options.seed)
    return [
        Request(scene, subject.caption(scene, seed))
        for scene, seed in zip(scenes, options.seeds, strict=True)
    ]
