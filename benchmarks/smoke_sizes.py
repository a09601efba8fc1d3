"""Smoke from sentences: the error against the size of the model.

    python -m benchmarks.smoke_sizes

Smoke is simulated, encoded and learned under ``data/smoke`` and ``runs/smoke-…``; whatever is done
there is not done again. Measurements are kept in ``docs/benchmarks/smoke_sizes.json``.
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
from samplers.cli.output import spread_out
from samplers.images.pixels import curve, sheet, write_png
from samplers.training import TrainingConfig
from text2pde.autoencoder.clips import clip_paths
from text2pde.cli import main as text2pde
from text2pde.diffusion.presets import Size
from text2pde.evaluation.frames import cut, evaluate_frames, first_frames_of
from text2pde.evaluation.reconstruction import evaluate_reconstruction
from text2pde.evaluation.sentences import captions_of
from text2pde.evaluation.smoke import evaluate_smoke
from text2pde.flows.clip import Clip, load_clip
from text2pde.pictures import frames
from text2pde.pipeline import load_text2pde
from text2pde.pipeline_training import train_diffusion

DATA, HELD_OUT, RUNS = ROOT / "data" / "smoke", ROOT / "data" / "smoke-held-out", ROOT / "runs"
AUTOENCODER = RUNS / "smoke-autoencoder" / "autoencoder"
LATENTS = RUNS / "smoke-latents.safetensors"
SIZES = {"64 x 4": Size(64, 4, 2), "128 x 6": Size(128, 6, 4), "192 x 6": Size(192, 6, 6)}
"""By width and depth."""
CASES, TESTED, STEPS = 400, 32, 1000
EXAMPLE, SHOWN, PICTURE = 3, 6, 160
"""A held-out plume, how many of its frames are shown, and their width in pixels."""


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
    """Train a transformer, and draw what is held out."""
    config = TrainingConfig(
        steps=STEPS, batch_size=16, learning_rate=1e-3, warmup=100, checkpoint_every=100,
        log_every=10,
    )  # fmt: skip
    path = train_diffusion(LATENTS, AUTOENCODER, run_of(size), size, config)
    pipe = load_text2pde(path, torch.device("cpu"))
    seeds, numbers = range(len(held_out)), pipe.transformer.scaled
    with torch.no_grad():
        asked = pipe.draw(captions_of(held_out), seeds)
        going_on = pipe.draw(first_frames_of(held_out), seeds)
        coded = evaluate_reconstruction(pipe.autoencoder, held_out, pipe.config.frames)
    return {
        "weights": sum(p.numel() for p in pipe.transformer.parameters()),
        "sentences": evaluate_smoke(asked, numbers, held_out, training)._asdict(),
        "frames": evaluate_frames(going_on, numbers, held_out, training)._asdict(),
        "coded": coded.coded.overall,
        "interpolated": coded.interpolated.overall,
        "compression": coded.compression,
    }


def run_of(size: Size) -> Path:
    return RUNS / f"smoke-{size.width}x{size.depth}"


def picture(solved: Clip) -> Image.Image:
    """A plume as it was solved, above what the largest model draws of a sentence about it."""
    pipe = load_text2pde(run_of(list(SIZES.values())[-1]) / "pipeline", torch.device("cpu"))
    with torch.no_grad():
        (drawn,) = pipe.draw(captions_of([solved]), [0])
    clips = [cut(solved, len(drawn.times)), drawn]
    return sheet([f for clip in clips for f in spread_out(frames(clip, PICTURE), SHOWN)], SHOWN)


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
        [name, f"{one['weights'] / 1e6:.2f} M", f"{one['sentences']['drawn']:.3f}",
         f"{one['sentences']['shuffled']:.3f}", f"{one['sentences']['rise']:.3f}",
         f"{one['frames']['drawn']:.3f}"]
        for name, one in found.items()
    ]  # fmt: skip
    last = list(found.values())[-1]
    rows.append(
        ["nearest plume of training", "", f"{last['sentences']['nearest']:.3f}", "", "",
         f"{last['frames']['nearest']:.3f}"]
    )  # fmt: skip
    rows.append(["the frame, as if it stayed", "", "", "", "", f"{last['frames']['still']:.3f}"])
    lines = {
        name: [(one["weights"] / 1e6, one[part]["drawn"]) for one in found.values()]
        for name, part in (("from a sentence", "sentences"), ("from a first frame", "frames"))
    }
    write_png(
        curve(lines, "relative error by millions of weights"),
        ROOT / "assets" / "pictures" / "smoke-sizes.png",
        {},
    )
    write_png(picture(held_out[EXAMPLE]), ROOT / "assets" / "pictures" / "smoke.png", {})
    path = write(
        "smoke_sizes",
        "Smoke, by the size of the model",
        f"{TESTED} plumes whose buoyancies were held out, drawn with 20 steps; learned from "
        f"{CASES} others in {STEPS} steps of 16. Errors are relative, over all fields, frames and "
        f"the area. The autoencoder keeps one number of {last['compression']:.0f}, and brings back "
        f"{last['coded']:.3f} (linear interpolation by a grid of 32 x 32: "
        f"{last['interpolated']:.3f}).",
        table(
            ["width x depth", "weights", "from a sentence", "from another sentence",
             "rank correlation of the rise", "from a first frame"],
            rows,
        ),
        "![The error by the number of weights](../../assets/pictures/smoke-sizes.png)",
        f"![A plume, solved and drawn](../../assets/pictures/smoke.png)\n\n*Solved, and below it "
        f"what the largest of them draws of “{captions_of([held_out[EXAMPLE]])[0].sentence}”*",
        "Written by `python -m benchmarks.smoke_sizes`.",
    )  # fmt: skip
    print(path.read_text())


if __name__ == "__main__":
    main()
