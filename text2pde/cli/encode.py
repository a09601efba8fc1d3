"""``text2pde encode``: the latents of clips, for a diffusion model to learn."""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm.auto import tqdm

from samplers.cli.arguments import Commands, add_command
from samplers.cli.failure import named_failures
from samplers.cli.processes import join
from samplers.cli.text import counted
from samplers.cli.values import positive

_EPILOG = """\
examples:
  text2pde encode runs/autoencoder/autoencoder data/cylinder --output runs/latents.safetensors

Every clip gives several windows, which begin at other phases of its vortices, and as many of its
mirror image with --mirrored, which is as much a flow.
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``encode``."""
    parser = add_command(commands, "encode", "encode clips once, for what learns latents", _EPILOG)
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder of an autoencoder")
    parser.add_argument("clips", type=Path, metavar="CLIPS", help="folder of `text2pde simulate`")
    parser.add_argument("--frames", type=positive, default=48, metavar="N", help="a window [48]")
    parser.add_argument(
        "--stride", type=positive, default=4, metavar="N", help="frames between windows [4]"
    )
    parser.add_argument(
        "--mirrored", action="store_true", help="every clip, and its mirror image after all clips"
    )
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda or cuda:N [auto: the GPU, if there is one]"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="NAME.safetensors", help="the file"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Encode; returns the exit code."""
    # diffusers takes seconds to import, and --help needs nothing of it.
    import torch

    from samplers.cli.output import prepare_folder, refuse_folder
    from text2pde.autoencoder.clips import as_it_is, clip_paths, read_clips
    from text2pde.autoencoder.latents import encode_clips, save_latents
    from text2pde.autoencoder.model import load_autoencoder
    from text2pde.flows.clip import mirrored

    if arguments.output.suffix != ".safetensors":
        raise ValueError(f"The output is {arguments.output}; it is a file, NAME.safetensors.")
    refuse_folder(arguments.output)
    processes = join(arguments.device)
    if not processes.main:
        return 0
    model = load_autoencoder(arguments.model).to(processes.device)
    paths = clip_paths(arguments.clips)
    changes = (as_it_is, mirrored) if arguments.mirrored else (as_it_is,)
    count = len(paths) * len(changes)
    prepare_folder(arguments.output.parent)
    with (
        torch.no_grad(),
        named_failures("take fewer --frames"),
        tqdm(total=2 * count, unit="clip", disable=None) as bar,
    ):
        clips = [
            clip
            for change in changes
            for clip in read_clips(paths, model.grid, model.config.radius, bar.update, change)
        ]
        latents = encode_clips(model, clips, arguments.frames, arguments.stride, bar.update)
    save_latents(latents, arguments.output)
    shape = " x ".join(map(str, latents.values.shape[1:]))
    print(
        f"{counted(len(latents.values), 'window')} of {counted(count, 'clip')}, each {shape} -> "
        f"{arguments.output}"
    )
    return 0
