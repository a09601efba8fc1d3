"""Plumes from sentences: the error by the number of parameters.

    python -m benchmarks.smoke_sizes

Smoke is simulated under ``data/smoke``, and models are trained under ``runs/smoke-…``; what exists
there is kept. Measurements are kept in ``docs/benchmarks/smoke_sizes.json``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from benchmarks.digits import ROOT, Kept
from benchmarks.report import FOLDER, table, write
from samplers.images.figures import curves
from samplers.images.files import write_png
from samplers.images.sheets import spread_out
from samplers.training import TrainingConfig
from text2pde.cli import main as text2pde
from text2pde.data.clip import Clip, clip_paths, load_clip
from text2pde.diffusion.transformer import Size
from text2pde.evaluation.first_frames import evaluate_first_frames, first_frame_requests
from text2pde.evaluation.prompts import caption_requests, evaluate_smoke
from text2pde.evaluation.reconstruction import evaluate_reconstruction
from text2pde.figures import figure_image, plot_clips
from text2pde.pipeline import load_text2pde
from text2pde.training import train_diffusion

DATA, HELD_OUT, RUNS = ROOT / "data" / "smoke", ROOT / "data" / "smoke-held-out", ROOT / "runs"
AUTOENCODER = RUNS / "smoke-autoencoder" / "autoencoder"
LATENTS = RUNS / "smoke-latents.safetensors"
SIZES = {"64 x 4": Size(64, 4, 2), "128 x 6": Size(128, 6, 4), "192 x 6": Size(192, 6, 6)}
"""By width and depth."""
CASES, TESTED, STEPS = 400, 32, 1000
EXAMPLE, SHOWN, WIDTH = 3, 6, 960
"""A held-out plume, how many of its frames are shown, and the width of the figure in pixels."""


def command(*words: object) -> None:
    code = text2pde([str(word) for word in words])
    if code:
        raise SystemExit(code)


def prepare() -> None:
    """Data and latents, as far as they are missing."""
    command("simulate", DATA, "--family", "smoke", "--cases", CASES)
    command("simulate", HELD_OUT, "--family", "smoke", "--cases", TESTED, "--held-out")
    command(
        "train-autoencoder", DATA, "--held-out", HELD_OUT, "--output", AUTOENCODER.parent,
        "--steps", 1500,
    )  # fmt: skip
    if not LATENTS.exists():
        command("encode", AUTOENCODER, DATA, "--output", LATENTS)


def measure(size: Size, training: Sequence[Clip], held_out: Sequence[Clip]) -> dict[str, Any]:
    """Train a transformer, and evaluate it on held-out clips."""
    config = TrainingConfig(
        steps=STEPS, batch_size=16, learning_rate=1e-3, warmup=100, checkpoint_every=100,
        log_every=10,
    )  # fmt: skip
    path = train_diffusion(LATENTS, AUTOENCODER, run_of(size), size, config)
    pipe = load_text2pde(path, torch.device("cpu"))
    seeds, numbers = range(len(held_out)), pipe.transformer.scaled
    with torch.no_grad():
        generated = pipe.generate(caption_requests(held_out), seeds)
        continued = pipe.generate(first_frame_requests(held_out), seeds)
        coded = evaluate_reconstruction(pipe.autoencoder, held_out, pipe.config.frames)
    return {
        "weights": sum(p.numel() for p in pipe.transformer.parameters()),
        "sentences": evaluate_smoke(generated, numbers, held_out, training)._asdict(),
        "frames": evaluate_first_frames(continued, numbers, held_out, training)._asdict(),
        "coded": coded.model.overall,
        "interpolated": coded.interpolated.overall,
        "compression": coded.compression,
    }


def run_of(size: Size) -> Path:
    return RUNS / f"smoke-{size.width}x{size.depth}"


def picture(simulated: Clip) -> Image.Image:
    """A simulated plume, above what the largest model generates from a caption of it."""
    pipe = load_text2pde(run_of(list(SIZES.values())[-1]) / "pipeline", torch.device("cpu"))
    with torch.no_grad():
        (generated,) = pipe.generate(caption_requests([simulated]), [0])
    times = spread_out(range(len(generated.times)), SHOWN)
    return figure_image(plot_clips({"simulated": simulated, "generated": generated}, times), WIDTH)


def read(folder: Path) -> list[Clip]:
    return [load_clip(path) for path in clip_paths(folder)]


def main() -> None:
    prepare()
    kept = Kept(FOLDER / "smoke_sizes.json", f"{CASES} cases, {STEPS} steps")
    training, held_out = read(DATA), read(HELD_OUT)
    found = {
        name: kept.get(name, partial(measure, size, training, held_out))
        for name, size in tqdm(SIZES.items(), "sizes")
    }
    rows = [
        [name, f"{one['weights'] / 1e6:.2f} M", f"{one['sentences']['generated']:.3f}",
         f"{one['sentences']['shuffled']:.3f}", f"{one['sentences']['rise']:.3f}",
         f"{one['frames']['generated']:.3f}"]
        for name, one in found.items()
    ]  # fmt: skip
    last = list(found.values())[-1]
    rows.append(
        ["nearest training plume", "", f"{last['sentences']['nearest']:.3f}", "", "",
         f"{last['frames']['nearest']:.3f}"]
    )  # fmt: skip
    rows.append(["first frame, held constant", "", "", "", "", f"{last['frames']['still']:.3f}"])
    lines = {
        name: [(one["weights"] / 1e6, one[part]["generated"]) for one in found.values()]
        for name, part in (("given a caption", "sentences"), ("given the first frame", "frames"))
    }
    write_png(
        curves(lines, "weights, in millions", "relative error"),
        ROOT / "assets" / "pictures" / "smoke-sizes.png",
        {},
    )
    write_png(picture(held_out[EXAMPLE]), ROOT / "assets" / "pictures" / "smoke.png", {})
    path = write(
        "smoke_sizes",
        "Smoke by model size",
        f"{TESTED} plumes with held-out buoyancies, generated with 20 steps by transformers that "
        f"were trained on {CASES} others for {STEPS} steps with batch size 16. Errors are relative "
        "L2 errors over all fields, frames and the area. The autoencoder compresses "
        f"{last['compression']:.0f}-fold; its reconstruction error is {last['coded']:.3f} (linear "
        f"interpolation on a grid of 32 x 32: {last['interpolated']:.3f}).",
        table(
            ["width x depth", "parameters", "error, given its caption", "error, given another's",
             "rank correlation of the rise", "error, given the first frame"],
            rows,
        ),
        "![The error by the number of parameters](../../assets/pictures/smoke-sizes.png)",
        f"![A plume, simulated and generated](../../assets/pictures/smoke.png)\n\n*Top: simulated. "
        "Bottom: generated by the largest model from "
        f"“{caption_requests([held_out[EXAMPLE]])[0].prompt}”*",
        "Written by `python -m benchmarks.smoke_sizes`.",
    )  # fmt: skip
    print(path.read_text())


if __name__ == "__main__":
    main()
