"""The work of ``text2pde generate`` and ``text2pde infer``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from samplers.checkpoint import CheckpointError
from samplers.cli.choices import changed_scheduler
from samplers.cli.failure import Failure, named_failures
from samplers.cli.output import check_places, prepare_folder
from samplers.cli.processes import Processes, join
from text2pde.channel import Flow
from text2pde.cli.arguments import BUNDLED
from text2pde.cli.writing import check_output, write_clip
from text2pde.evaluation.frames import cut
from text2pde.flows.clip import Clip, load_clip
from text2pde.flows.statistics import STEADY, relative_error, statistics
from text2pde.mesh_files import read_mesh
from text2pde.pipeline import Request, Text2PDEPipeline, load_text2pde
from text2pde.scene import check_fits

_HINT = " Run it in a clone of the repository, which has this model, or pass --checkpoint."


def generate(arguments: argparse.Namespace) -> int:
    """Draw the flow of a sentence; returns the exit code."""
    processes = join(arguments.device)
    _check_outputs(arguments)
    pipe = open_pipeline(arguments, processes.device)
    flow, mesh = pipe.subject.read(arguments.prompt), None
    if arguments.mesh is not None:
        mesh = read_mesh(arguments.mesh, flow)
        check_fits(mesh, flow)
    request = Request(flow, arguments.prompt, mesh)
    return _drawn(arguments, processes, pipe, request, {"prompt": arguments.prompt})


def infer(arguments: argparse.Namespace) -> int:
    """Draw how a flow goes on from a frame of a clip; returns the exit code."""
    clip = load_clip(arguments.clip)
    if arguments.frame >= len(clip.times):
        raise ValueError(
            f"The frame {arguments.frame} was asked for; {arguments.clip} has those from 0 to "
            f"{len(clip.times) - 1}."
        )
    later = clip._replace(
        times=clip.times[arguments.frame :], fields=clip.fields[arguments.frame :]
    )
    processes = join(arguments.device)
    _check_outputs(arguments)
    pipe = open_pipeline(arguments, processes.device)
    request = Request(clip.flow, mesh=clip.mesh, first=later)
    about = {"clip": f"{arguments.clip}, frame {arguments.frame}"}
    return _drawn(arguments, processes, pipe, request, about)


def open_pipeline(arguments: argparse.Namespace, device: torch.device) -> Text2PDEPipeline:
    """The pipeline, with the sampler that was asked for."""
    try:
        pipe = load_text2pde(arguments.checkpoint, device)
    except CheckpointError as error:
        hint = "" if arguments.checkpoint != BUNDLED else _HINT
        raise Failure(f"{error}{hint}") from error
    if arguments.text_encoder is not None:
        pipe.register_to_config(text_encoder=arguments.text_encoder)
    pipe.scheduler = changed_scheduler(pipe.scheduler, arguments)
    return pipe


def draw(
    pipe: Text2PDEPipeline,
    requests: Sequence[Request],
    seeds: Sequence[int],
    steps: int,
    guidance: float,
) -> list[Clip]:
    """Flows, with a bar of the network calls."""
    with (
        torch.no_grad(),
        named_failures("draw on the CPU"),
        tqdm(total=pipe.tableau(steps).calls, unit="call", disable=None, leave=False) as bar,
    ):
        return pipe.draw(requests, seeds, steps, guidance, callback=lambda _: bar.update())


def _outputs(arguments: argparse.Namespace) -> list[Path]:
    return [path for path in (arguments.output, arguments.animation) if path is not None]


def _check_outputs(arguments: argparse.Namespace) -> None:
    for path in _outputs(arguments):
        check_output(path)
    check_places(_outputs(arguments))


def _drawn(
    arguments: argparse.Namespace,
    processes: Processes,
    pipe: Text2PDEPipeline,
    request: Request,
    about: dict[str, str],
) -> int:
    """Draw one flow, write it, and say what it is."""
    if not processes.main:
        return 0  # one flow is drawn by one process
    for path in _outputs(arguments):
        prepare_folder(path.parent)
    started = time.perf_counter()
    (clip,) = draw(pipe, [request], [arguments.seed], arguments.steps, arguments.guidance)
    seconds = time.perf_counter() - started
    config = pipe.scheduler.config
    made_by = {
        **about,
        "checkpoint": str(arguments.checkpoint),
        "sampler": f"{config.sampler}, {config.sampler_options}, grid {config.grid}",
        "steps": str(arguments.steps),
        "guidance": str(arguments.guidance),
        "seed": str(arguments.seed),
    }
    where = [write_clip(clip, path, made_by) for path in _outputs(arguments)]
    print(
        f"{clip.flow}: {len(clip.times)} frames over {clip.times[-1]:.3g} s on "
        f"{len(clip.mesh.nodes)} nodes, drawn in {seconds:.1f} s"
    )
    if isinstance(clip.flow, Flow):
        found = statistics(clip)
        rate = f", at {found.frequency:.3g} Hz" if found.fluctuation > STEADY else ""
        print(
            f"behind the cylinder the velocity across changes by {found.fluctuation:.3f} of the "
            f"inlet's{rate}"
        )
    if request.first is not None and len(request.first.times) > 1:
        print(_comparison(clip, request.first))
    print(f"-> {', '.join(where)}")
    return 0


def _comparison(found: Clip, truth: Clip) -> str:
    """How far a flow is from what really became of its first frame, at times that both have."""
    count = min(len(found.times), len(truth.times))
    if count < 2:
        return "the clip has no other frame to compare it with"
    ours, theirs = ((clip.times - clip.times[0])[:count] for clip in (found, truth))
    if np.abs(ours - theirs).max() > 0.1 * ours[1]:
        return "its frames are at other times than those of the clip, so they are not compared"
    real = cut(truth, count)
    drawn = relative_error(found.fields[:count], real)
    still = relative_error(truth.fields[:1].repeat(count, axis=0), real)
    return (
        f"over {count} frames it is {drawn:.3f} from what the clip has, relative; its first frame "
        f"alone is {still:.3f} from that"
    )
