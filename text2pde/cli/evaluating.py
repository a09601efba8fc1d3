"""The work of ``text2pde evaluate``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tqdm.auto import tqdm

from samplers.cli.failure import named_failures
from samplers.cli.output import prepare_folder, refuse_folder
from samplers.cli.processes import join
from samplers.cli.text import counted
from samplers.files import replacing
from text2pde.autoencoder.clips import clip_paths
from text2pde.cli.drawing import draw, open_pipeline
from text2pde.evaluation.continuation import evaluate_continuation
from text2pde.evaluation.frames import Frames, evaluate_frames, first_frames_of
from text2pde.evaluation.reconstruction import Reconstruction, evaluate_reconstruction
from text2pde.evaluation.sentences import (
    Numbers,
    Sentences,
    captions_of,
    evaluate_sentences,
    sweep_of,
)
from text2pde.evaluation.smoke import SmokeSentences, evaluate_smoke
from text2pde.flows.clip import Clip, load_clip
from text2pde.pipeline import Request, Text2PDEPipeline
from text2pde.solver.navier_stokes import DivergedError


def run(arguments: argparse.Namespace) -> int:
    """Print the table; returns the exit code."""
    output: Path | None = arguments.output
    if output is not None and output.suffix != ".md":
        raise ValueError(f"The output is {output}; it is a table, NAME.md.")
    if output is not None:
        refuse_folder(output)
    processes = join(arguments.device)
    if not processes.main:
        return 0
    pipe = open_pipeline(arguments, processes.device)
    held_out = _read(arguments.clips, pipe)
    training = _read(arguments.training, pipe)
    if len(held_out) < 2:
        raise ValueError(f"{arguments.clips} has one clip; two are needed to compare.")
    known = {clip.flow for clip in training}
    learned = sum(clip.flow in known for clip in held_out)

    def drawn(requests: Sequence[Request]) -> list[Clip]:
        seeds = [arguments.seed + number for number in range(len(requests))]
        return draw(pipe, requests, seeds, arguments.steps, arguments.guidance)

    numbers = pipe.transformer.scaled
    with torch.no_grad(), named_failures("evaluate on the CPU"):
        coded = evaluate_reconstruction(pipe.autoencoder, held_out, pipe.config.frames)
    asked = drawn(captions_of(held_out))
    if pipe.config.subject == "smoke":
        parts = [_smoke(evaluate_smoke(asked, numbers, held_out, training))]
    else:
        swept = drawn(sweep_of(held_out[0]))
        parts = [
            *_sentences(evaluate_sentences(asked, swept, numbers, held_out, training)),
            _continuation(asked, numbers, training),
        ]
    frames = evaluate_frames(drawn(first_frames_of(held_out)), numbers, held_out, training)
    first = f"Measured on {counted(len(held_out), 'flow')}, {learned or 'none'} of them learned."
    text = "\n\n".join([first, _latent(coded), *parts, _frames(frames)]) + "\n"
    print(text, end="")
    if output is not None:
        prepare_folder(output.parent)
        with replacing(output) as part:
            part.write_text(text)
    return 0


def _continuation(drawn: Sequence[Clip], numbers: Numbers, training: Sequence[Clip]) -> str:
    """What solving on from drawn frames comes to."""
    try:
        found = evaluate_continuation(drawn, numbers, training)
    except (DivergedError, ValueError) as error:  # the latter for want of a package
        return f"What was drawn can't be solved on from: {error}"
    return (
        "Solved on from a drawn frame for half a period, the flow is "
        f"{found.drawn:.3f} from what was drawn, and {found.nearest:.3f} from the nearest flow of "
        "training."
    )


def _read(folder: Path, pipe: Text2PDEPipeline) -> list[Clip]:
    """Clips that can be compared with what the model draws."""
    with tqdm(clip_paths(folder), desc="clips", disable=None, leave=False) as paths:
        return [_checked(load_clip(path), path, pipe) for path in paths]


def _checked(clip: Clip, path: Path, pipe: Text2PDEPipeline) -> Clip:
    frames, interval = pipe.config.frames, pipe.config.interval
    if len(clip.times) < frames or abs(clip.interval - interval) > 1e-6 * interval:
        raise ValueError(
            f"{path} has {len(clip.times)} frames that are {clip.interval:.3g} apart; the model "
            f"draws {frames} that are {interval:.3g} apart, and needs as many to compare."
        )
    return clip


def _latent(coded: Reconstruction) -> str:
    return _rows(
        ("through the latent, relative error", "all fields", "velocity across"),
        (f"autoencoder, {coded.compression:.0f} numbers to one", *_plain(coded.coded)),
        ("linear, by a grid of 32 x 32", *_plain(coded.interpolated)),
    )


def _sentences(found: Sentences) -> list[str]:
    table = _rows(
        ("from a sentence, median error", "frequency", "fluctuation"),
        ("drawn", *_percent(found.drawn)),
        ("drawn from another sentence", *_percent(found.shuffled)),
        ("nearest flow of training", *_percent(found.nearest)),
        ("the same, at this speed and size", *_percent(found.rescaled)),
    )
    about = (
        "Rank correlation of the Reynolds numbers that were asked for with the Strouhal numbers: "
        f"{found.reynolds.strouhal:.3f}, with the fluctuations: {found.reynolds.fluctuation:.3f}. "
        f"Slip on the cylinder: {found.slip:.1e} U. Divergence: {found.divergence:.2f} U / D, and "
        f"{found.solved_divergence:.2f} of flows that were solved."
    )
    return [table, about]


def _smoke(found: SmokeSentences) -> str:
    table = _rows(
        ("from a sentence", "median relative error"),
        ("drawn", f"{found.drawn:.3f}"),
        ("drawn from another sentence", f"{found.shuffled:.3f}"),
        ("nearest plume of training", f"{found.nearest:.3f}"),
    )
    return f"{table}\n\nHow high smoke rises: rank correlation {found.rise:.3f}."


def _frames(found: Frames) -> str:
    return _rows(
        ("from a first frame", "relative error"),
        ("drawn", f"{found.drawn:.3f}"),
        ("the frame, as if it stayed", f"{found.still:.3f}"),
        ("nearest flow of training, in phase", f"{found.nearest:.3f}"),
    )


def _rows(header: tuple[str, ...], *rows: tuple[str, ...]) -> str:
    """A table of Markdown."""
    ruler = ("---", *("---:" for _ in header[1:]))
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ruler, *rows))


def _plain(errors: Iterable[float]) -> list[str]:
    return [f"{error:.3f}" for error in errors]


def _percent(errors: Iterable[float]) -> list[str]:
    return ["-" if math.isnan(error) else f"{error:.1%}" for error in errors]
