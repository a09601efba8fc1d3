"""How `assets/cylinder` was made: flows are solved for, and a model learns to draw them.

    python examples/flows/cylinder.py

It takes some hours on two cores. Every part keeps what it did under ``data`` and ``runs``, so that
the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import torch

from samplers.files import replacing
from text2pde.cli import main as text2pde
from text2pde.data.mesh_files import write_mesh
from text2pde.pipeline import load_text2pde
from text2pde.solver.meshing import mesh_of
from text2pde.subject import read_prompt

CASES, HELD_OUT, AUTOENCODER_CASES = 88, 16, 39
SENTENCE = "Water flows past a cylinder of radius 0.05 m at Reynolds number 120"


def run(*words: object) -> None:
    """A command of text2pde; what goes wrong ends the script."""
    print("text2pde", *words, flush=True)
    code = text2pde([str(word) for word in words])
    if code:
        sys.exit(code)


def export(pipeline: Path, folder: Path, keep: Iterable[str] = ("README.md",)) -> None:
    """The pipeline in half precision, which is enough for it, with a mesh to try.

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
