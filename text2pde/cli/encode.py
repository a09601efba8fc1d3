"""``text2pde encode``: a data set of latents."""

from __future__ import annotations

from pathlib import Path

from samplers.cli.common.errors import evaluating
from samplers.cli.common.options import OverwriteOptions
from samplers.cli.common.output import prepare_folder, refuse_folder
from samplers.cli.common.program import argument, command, option
from samplers.cli.common.text import counted
from samplers.cli.common.values import OUTPUT, PATH, POSITIVE
from text2pde.cli.common import DeviceOptions


class EncodeOptions(DeviceOptions, OverwriteOptions, section="Options"):
    """Which windows of which clips are encoded."""

    autoencoder: Path = argument("AUTOENCODER", type=PATH, help="Folder of an autoencoder.")
    clips: Path = argument("CLIPS", type=PATH, help="Folder of clips.")
    output: Path = option(
        type=OUTPUT, help="File, NAME.safetensors.", required=True, section="Output"
    )
    frames: int = option(type=POSITIVE, help="Frames of a window.", default=48)
    stride: int = option(type=POSITIVE, help="Frames between the starts of windows.", default=4)
    mirrored: bool = option(
        is_flag=True, help="Add the mirror image of each clip, which is a solution as well."
    )


@command(
    "Example:\n  text2pde encode runs/autoencoder/autoencoder data/cylinder --output "
    "runs/latents.safetensors",
    single_process=True,
)
def run(options: EncodeOptions) -> None:
    """Encode clips once, to train a diffusion model on their latents.

    AUTOENCODER is a folder with the model, CLIPS one of `text2pde simulate`. Each clip gives
    several windows, which start at different phases of its vortices.
    """
    from tqdm.auto import tqdm

    from samplers.cli.common.processes import find_device
    from text2pde.autoencoder.clips import read_clips, unchanged
    from text2pde.autoencoder.latents import encode_clips, save_latents
    from text2pde.autoencoder.model import load_autoencoder
    from text2pde.data.clip import clip_paths, mirrored

    output = options.output
    if output.suffix != ".safetensors":
        raise ValueError(f"The output is {output}; it is a file, NAME.safetensors.")
    refuse_folder(output)
    model = load_autoencoder(options.autoencoder).to(find_device(options.device))
    paths = clip_paths(options.clips)
    transforms = (unchanged, mirrored) if options.mirrored else (unchanged,)
    count = len(paths) * len(transforms)
    prepare_folder(output.parent)
    grid, radius = model.grid, model.config.radius
    with (
        evaluating("take fewer --frames"),
        tqdm(total=2 * count, unit="clip", disable=None) as bar,
    ):
        clips = [
            clip
            for transform in transforms
            for clip in read_clips(paths, grid, radius, bar.update, transform)
        ]
        latents = encode_clips(model, clips, options.frames, options.stride, bar.update)
    save_latents(latents, output)
    shape = " x ".join(map(str, latents.values.shape[1:]))
    windows = counted(len(latents.values), "window")
    print(f"{windows} of {counted(count, 'clip')}, each {shape} -> {output}")
