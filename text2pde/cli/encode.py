"""``text2pde encode``: a data set of latents."""

from __future__ import annotations

from pathlib import Path

from samplers.cli.common.errors import named_failures
from samplers.cli.common.output import prepare_folder, refuse_folder
from samplers.cli.common.processes import join
from samplers.cli.common.program import argument, command, option
from samplers.cli.common.text import counted
from samplers.cli.common.values import PATH, POSITIVE
from text2pde.cli.common import device_option

_EXAMPLES = """\
Example:
  text2pde encode runs/autoencoder/autoencoder data/cylinder --output runs/latents.safetensors
"""


@command(_EXAMPLES)
def run(
    *,
    model: Path = argument("AUTOENCODER", type=PATH),
    clips: Path = argument("CLIPS", type=PATH),
    output: Path = option("--output", type=PATH, required=True, help="File, NAME.safetensors."),
    frames: int = option("--frames", type=POSITIVE, default=48, help="Of a window."),
    stride: int = option(
        "--stride", type=POSITIVE, default=4, help="Frames between the starts of windows."
    ),
    mirrored: bool = option(
        "--mirrored", is_flag=True, help="Add the mirror image of each clip, a solution as well."
    ),
    device: str = device_option(),
) -> int:
    """Encode clips once, to train a diffusion model on their latents.

    AUTOENCODER is a folder with the model, CLIPS one of `text2pde simulate`. Each clip gives
    several windows, which start at different phases of its vortices.
    """
    import torch
    from tqdm.auto import tqdm

    from text2pde.autoencoder.clips import read_clips, unchanged
    from text2pde.autoencoder.latents import encode_clips, save_latents
    from text2pde.autoencoder.model import load_autoencoder
    from text2pde.data import clip

    if output.suffix != ".safetensors":
        raise ValueError(f"The output is {output}; it is a file, NAME.safetensors.")
    refuse_folder(output)
    processes = join(device)
    if not processes.main:
        return 0
    autoencoder = load_autoencoder(model).to(processes.device)
    paths = clip.clip_paths(clips)
    transforms = (unchanged, clip.mirrored) if mirrored else (unchanged,)
    count = len(paths) * len(transforms)
    prepare_folder(output.parent)
    grid, radius = autoencoder.grid, autoencoder.config.radius
    with (
        torch.no_grad(),
        named_failures("take fewer --frames"),
        tqdm(total=2 * count, unit="clip", disable=None) as bar,
    ):
        prepared = [
            each
            for transform in transforms
            for each in read_clips(paths, grid, radius, bar.update, transform)
        ]
        latents = encode_clips(autoencoder, prepared, frames, stride, bar.update)
    save_latents(latents, output)
    shape = " x ".join(map(str, latents.values.shape[1:]))
    print(
        f"{counted(len(latents.values), 'window')} of {counted(count, 'clip')}, each {shape} -> "
        f"{output}"
    )
    return 0
