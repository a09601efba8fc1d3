"""The training of `assets/cylinder`: simulate flows, and train a model to generate them.

    python examples/flows/cylinder.py

It takes some hours on two cores. Every part stores its results under ``data`` and ``runs``, so that
the same command resumes after an interruption.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import torch

from samplers.files import replacing
from text2pde import load_text2pde, mesh_of, read_prompt, write_mesh

CASES, HELD_OUT, AUTOENCODER_CASES = 88, 16, 39
SENTENCE = "Water flows past a cylinder of radius 0.05 m at Reynolds number 120"


def run(*words: object) -> None:
    """A command of text2pde; an error ends the script."""
    print("text2pde", *words, flush=True)
    subprocess.run([sys.executable, "-m", "text2pde", *map(str, words)], check=True)


def export(pipeline: Path, folder: Path, keep: Iterable[str] = ("README.md",)) -> None:
    """Save the pipeline in half precision, with a mesh to try.

    keep: files of the folder that stay.
    """
    pipe = load_text2pde(pipeline, torch.device("cpu")).to(torch.float16)
    with replacing(folder) as part:
        pipe.save_pretrained(part)
        write_mesh(mesh_of(read_prompt(SENTENCE)), part / "mesh.msh")
        for name in keep:
            if (folder / name).exists():
                (part / name).write_bytes((folder / name).read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/cylinder"))
    parser.add_argument("--held-out", type=Path, default=Path("data/cylinder-held-out"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--export", type=Path, default=Path("assets/cylinder"))
    arguments = parser.parse_args()
    data, held_out, runs = arguments.data, arguments.held_out, arguments.runs
    autoencoder = runs / "autoencoder" / "autoencoder"
    latents = runs / "latents.safetensors"
    run("simulate", held_out, "--cases", HELD_OUT, "--held-out")
    run("simulate", data, "--cases", CASES)
    run(
        "train-autoencoder", data, "--held-out", held_out, "--output", runs / "autoencoder",
        "--cases", AUTOENCODER_CASES, "--steps", 2500,
    )  # fmt: skip
    if not latents.exists():
        run("encode", autoencoder, data, "--output", latents)
    run(
        "train-diffusion", latents, "--autoencoder", autoencoder, "--output", runs / "diffusion",
        "--steps", 3300,
    )  # fmt: skip
    export(runs / "diffusion" / "pipeline", arguments.export)
    run("evaluate", held_out, "--training", data, "--checkpoint", arguments.export)


if __name__ == "__main__":
    main()
