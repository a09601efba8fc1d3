"""``text2pde evaluate``: a table of how good a model is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from samplers.cli.common.errors import evaluating, writing
from samplers.cli.common.options import OverwriteOptions
from samplers.cli.common.output import prepare_folder, refuse_folder
from samplers.cli.common.program import argument, command, option
from samplers.cli.common.text import counted
from samplers.cli.common.values import OUTPUT, PATH
from text2pde.cli.common import GenerationOptions, generate_clips, open_pipeline

if TYPE_CHECKING:
    from text2pde.data.clip import Clip
    from text2pde.evaluation.baselines import ScaleParameters
    from text2pde.evaluation.first_frames import FirstFrameErrors
    from text2pde.evaluation.prompts import CylinderEvaluation, SmokeEvaluation
    from text2pde.evaluation.reconstruction import Reconstruction
    from text2pde.pipeline import Request, Text2PDEPipeline


class EvaluateOptions(GenerationOptions, OverwriteOptions, section="Options"):
    """Which clips a model is evaluated on."""

    clips: Path = argument("CLIPS", type=PATH, help="Folder of held-out clips.")
    training: Path = option(type=PATH, help="Folder of the training clips.", required=True)
    output: Path | None = option(
        type=OUTPUT, help="The table as a file, NAME.md.", section="Output"
    )


@command(
    "Example:\n  text2pde evaluate data/held-out --training data/cylinder --output table.md",
    single_process=True,
)
def run(options: EvaluateOptions) -> None:
    """Measure a model on held-out clips.

    CLIPS is a folder of `text2pde simulate --held-out`. The table has the errors of reconstruction,
    of clips generated from captions and of clips generated from first frames, each beside a
    baseline without a model: linear interpolation, the nearest training clip, the first frame held
    constant.
    """
    from samplers.files import replacing

    output = options.output
    if output is not None and output.suffix != ".md":
        raise ValueError(f"The output is {output}; it is a table, NAME.md.")
    if output is not None:
        refuse_folder(output)
    pipe = open_pipeline(options)
    held_out, training = _read(options.clips, pipe), _read(options.training, pipe)
    if len(held_out) < 2:
        raise ValueError(f"{options.clips} has one clip; at least two are needed.")
    text = "\n\n".join(_report(pipe, held_out, training, options)) + "\n"
    print(text, end="")
    if output is not None:
        prepare_folder(output.parent)
        with writing(output), replacing(output) as part:
            part.write_text(text)


def _read(folder: Path, pipe: Text2PDEPipeline) -> list[Clip]:
    """Clips that can be compared with those of the model."""
    from tqdm.auto import tqdm

    from text2pde.data.clip import clip_paths, load_clip

    with tqdm(clip_paths(folder), desc="clips", disable=None, leave=False) as paths:
        return [_checked(load_clip(path), path, pipe) for path in paths]


def _checked(clip: Clip, path: Path, pipe: Text2PDEPipeline) -> Clip:
    frames, interval = pipe.config.frames, pipe.config.interval
    if len(clip.times) < frames or abs(clip.interval - interval) > 1e-6 * interval:
        raise ValueError(
            f"{path} has {len(clip.times)} frames that are {clip.interval:.3g} time units apart; "
            f"the model generates {frames} that are {interval:.3g} apart, and needs as many."
        )
    return clip


def _report(
    pipe: Text2PDEPipeline,
    held_out: Sequence[Clip],
    training: Sequence[Clip],
    options: GenerationOptions,
) -> Iterator[str]:
    """The parts of the report, in Markdown."""
    from text2pde.evaluation.first_frames import evaluate_first_frames, first_frame_requests
    from text2pde.evaluation.prompts import (
        caption_requests,
        evaluate_cylinder,
        evaluate_smoke,
        sweep_requests,
    )
    from text2pde.evaluation.reconstruction import evaluate_reconstruction

    def generate(requests: Sequence[Request]) -> list[Clip]:
        seeds = [options.seed + number for number in range(len(requests))]
        return generate_clips(pipe, requests, seeds, options)

    scaled = pipe.transformer.scaled
    known = {clip.scene for clip in training}
    trained = sum(clip.scene in known for clip in held_out)
    yield f"Measured on {counted(len(held_out), 'clip')}, {trained or 'none'} of them trained on."
    with evaluating("take --device cpu"):
        yield _latent(evaluate_reconstruction(pipe.autoencoder, held_out, pipe.config.frames))
    generated = generate(caption_requests(held_out))
    if pipe.config.subject == "smoke":
        yield from _smoke(evaluate_smoke(generated, scaled, held_out, training))
    else:
        sweep = generate(sweep_requests(held_out[0]))
        yield from _cylinder(evaluate_cylinder(generated, sweep, scaled, held_out, training))
        yield _continuation(generated, scaled, training)
    continued = generate(first_frame_requests(held_out))
    yield _first_frames(evaluate_first_frames(continued, scaled, held_out, training))


# -------------------------------------------------------------------------------------- wording


def _latent(found: Reconstruction) -> str:
    return _table(
        ("reconstruction, relative error", "all fields", "transverse velocity"),
        (f"autoencoder, compression {found.compression:.0f}", *_plain(found.model)),
        ("linear interpolation, grid of 32 x 32", *_plain(found.interpolated)),
    )


def _cylinder(found: CylinderEvaluation) -> Iterator[str]:
    yield _table(
        ("from a prompt, median relative error", "shedding frequency", "rms v'"),
        ("generated", *_percent(found.generated)),
        ("generated from another prompt", *_percent(found.shuffled)),
        ("nearest training clip", *_percent(found.nearest)),
        ("nearest training clip, rescaled by U / D", *_percent(found.rescaled)),
    )
    yield (
        "Rank correlation of the Reynolds numbers in a sweep of prompts with the Strouhal numbers: "
        f"{found.ranks.strouhal:.3f}, with rms v': {found.ranks.fluctuation:.3f}. "
        f"Slip on the cylinder: {found.slip:.1e} U. Divergence: {found.divergence:.2f} U / D, and "
        f"{found.solved_divergence:.2f} of simulated flows."
    )


def _smoke(found: SmokeEvaluation) -> Iterator[str]:
    yield _table(
        ("from a prompt", "median relative error"),
        ("generated", *_plain([found.generated])),
        ("generated from another prompt", *_plain([found.shuffled])),
        ("nearest training clip", *_plain([found.nearest])),
    )
    yield f"Mean height of the smoke: rank correlation {found.rise:.3f}."


def _continuation(
    generated: Sequence[Clip], scaled: ScaleParameters, training: Sequence[Clip]
) -> str:
    from text2pde.evaluation.first_frames import evaluate_continuation
    from text2pde.solver.navier_stokes import DivergedError

    try:
        found = evaluate_continuation(generated, scaled, training)
    except (DivergedError, ValueError) as error:  # the latter for lack of a package
        return f"The equations can't be solved from generated frames: {error}"
    return (
        "Relative distance to the solution that starts at a generated frame, over half a shedding "
        f"period: {found.generated:.3f} of the generated clip, {found.nearest:.3f} of the nearest "
        "training clip."
    )


def _first_frames(found: FirstFrameErrors) -> str:
    return _table(
        ("from a first frame", "relative error"),
        ("generated", *_plain([found.generated])),
        ("first frame, held constant", *_plain([found.still])),
        ("nearest training clip, in phase", *_plain([found.nearest])),
    )


def _table(header: tuple[str, ...], *rows: tuple[str, ...]) -> str:
    """Of Markdown."""
    ruler = ("---", *("---:" for _ in header[1:]))
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ruler, *rows))


def _plain(errors: Iterable[float]) -> list[str]:
    return [f"{error:.3f}" for error in errors]


def _percent(errors: Iterable[float]) -> list[str]:
    return ["-" if math.isnan(error) else f"{error:.1%}" for error in errors]
