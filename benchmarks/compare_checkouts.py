"""Whether two checkouts sample the same, bit for bit: the commands of the docs, run in both.

    python benchmarks/compare_checkouts.py BEFORE AFTER

Each command runs with the packages of its checkout and the interpreter of this script. Compared are
images by their pixels, tensors and fields by their bytes, tables by their text; not figures, whose
drawing may change. The exit code is 0 if nothing differs.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

SAMPLE = "samplers sample assets/digits --steps 5 --num-images 4 --output"
COMMANDS: tuple[str, ...] = (
    f"{SAMPLE} plain.png",
    f"{SAMPLE} guided.png --label 3,8 --guidance 1.5 --guidance-rescale 0.5",
    f"{SAMPLE} ancestral.png --sampler ancestral --option eta=0.5",
    f"{SAMPLE} unipc.png --sampler unipc-2 --grid karras --seeds 5,7,9,11",
    f"{SAMPLE} brownian.png --sampler sde-dpmpp-2m --noise brownian --grid log-snr",
    f"{SAMPLE} corrector.png --sampler reverse-diffusion+annealed-langevin",
    f"{SAMPLE} heun.png --sampler heun --final sigma_min --sigma-max 20 --grid log-snr",
    (
        "samplers sample assets/digits --num-images 2 --sampler dormand-prince --tolerance 0.05"
        " --output adaptive.png"
    ),
    "samplers sample assets/colour --steps 4 --num-images 2 --sampler deis-3 --output colour.png",
    "samplers sample assets/digits --steps 3 --seeds 0-2 --sampler ddim --output folder/",
    "samplers encode assets/digits folder/seed-00000000.png --label 0 --output codes.safetensors",
    "samplers decode assets/digits codes.safetensors --output decoded.png",
    "samplers decode assets/digits codes.safetensors --temperature 0.8 --output tempered.png",
    (
        "samplers likelihood assets/digits folder/seed-00000000.png folder/seed-00000001.png"
        " --label 0,1 --csv bits.csv"
    ),
    (
        "samplers restore assets/restore examples/effects/bold.png --task noisy --steps 3"
        " --output restored/"
    ),
    "samplers show dpmpp-3m-corrected --steps 6 --json",
    (
        'text2pde generate "Water flows past a cylinder of radius 0.05 m at Reynolds number 120"'
        " --steps 4 --output flow.safetensors"
    ),
    (
        'text2pde generate "A cylinder of diameter 10 cm in a channel, Re = 80" --steps 3'
        " --sampler ancestral --seed 3 --guidance 2 --output stochastic.safetensors"
    ),
    "text2pde infer flow.safetensors --steps 3 --output later.safetensors",
    (
        'text2pde generate "Water flows past a cylinder of radius 0.05 m at Reynolds number 100"'
        " --steps 3 --sampler heun --output flow.vtu"
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    arguments = parser.parse_args()
    checkouts = [arguments.before.resolve(), arguments.after.resolve()]
    differing = 0
    with tempfile.TemporaryDirectory() as root:
        places = [Path(root) / name for name in ("before", "after")]
        for place, checkout in zip(places, checkouts, strict=True):
            place.mkdir()
            for name in ("assets", "examples"):
                (place / name).symlink_to(checkout / name)
        compared: set[Path] = set()
        for command in COMMANDS:
            outputs = [_run(command, *pair) for pair in zip(places, checkouts, strict=True)]
            difference = _difference(places, outputs, compared)
            differing += bool(difference)
            print(f"{difference or 'the same':40}  {command}", flush=True)
    print(f"{len(COMMANDS)} commands, {differing} differ")
    return int(differing > 0)


def _run(command: str, place: Path, checkout: Path) -> str:
    words = shlex.split(command)
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{command} failed in {checkout}:\n{done.stderr}")
    return done.stdout if "--json" in words else ""


def _difference(places: list[Path], outputs: list[str], compared: set[Path]) -> str:
    """The first new file, or the output, that differs; empty if none does.

    The new files are added to those that are compared already.
    """
    before, after = ({p.relative_to(root) for p in _files(root)} - compared for root in places)
    compared |= before | after
    if outputs[0] != outputs[1]:
        return "output differs"
    if before != after:
        return f"files differ: {min(before ^ after)}"
    differing = [name for name in sorted(before) if not _same(*(root / name for root in places))]
    return f"{differing[0]} differs" if differing else ""


def _files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def _same(one: Path, other: Path) -> bool:
    if one.suffix == ".png":
        first, second = (np.asarray(Image.open(path)) for path in (one, other))
        return first.shape == second.shape and bool((first == second).all())
    if one.suffix == ".safetensors":
        return _tensors(one) == _tensors(other)
    return one.read_bytes() == other.read_bytes()


def _tensors(path: Path) -> dict[str, bytes]:
    """By name; metadata, such as the path of the checkpoint, are ignored."""
    from safetensors.numpy import load_file

    return {name: value.tobytes() for name, value in load_file(path).items()}


if __name__ == "__main__":
    sys.exit(main())
