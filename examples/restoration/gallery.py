"""Make one figure of photographs, degraded in every way and restored.

    python examples/restoration/gallery.py --photographs data/photographs

It shows what `samplers restore CHECKPOINT PHOTOGRAPHS --degrade NAME --sampler mr-sde-d-1
--steps 5` makes of each degradation.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from samplers import LoadOptions, SamplerScheduler
from samplers.checkpoint import load_restoration
from samplers.files import replacing
from samplers.images import Cell, image_paths, read_any, table, to_images
from samplers.restoration import degrade

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "assets" / "restore")
    parser.add_argument("--photographs", type=Path, default=Path("data/photographs"))
    parser.add_argument("--output", type=Path, default=ROOT / "assets/pictures/restored.jpg")
    parser.add_argument("--sampler", default="mr-sde-d-1")
    parser.add_argument("--steps", type=int, default=5)
    arguments = parser.parse_args()
    pipe = load_restoration(arguments.checkpoint, LoadOptions())
    pipe.scheduler = SamplerScheduler.from_config(pipe.scheduler.config, sampler=arguments.sampler)
    images = [read_any(path) for path in image_paths([arguments.photographs])]
    rows = []
    for task in tqdm(pipe.config.tasks, "degradations"):
        given = [degrade(image, [task], [seed]) for seed, image in enumerate(images)]
        with torch.no_grad():
            found = [
                pipe.restore(mu, [task], [seed], arguments.steps) for seed, mu in enumerate(given)
            ]
        rows += [(task, [cell(mu) for mu in given]), ("restored", [cell(x) for x in found])]
    rows.append(("original", [cell(image) for image in images]))
    title = f"Restored by {arguments.sampler}, NFE {arguments.steps}"
    figure = table(title, [""] * len(images), rows)
    with replacing(arguments.output) as part:
        jpeg = {"quality": 90}
        figure.savefig(part, format="jpeg", bbox_inches="tight", pil_kwargs=jpeg)
    print(arguments.output)


def cell(image: torch.Tensor) -> Cell:
    (picture,) = to_images(image)
    colours: Image.Image = picture.convert("RGB")
    return Cell(colours)


if __name__ == "__main__":
    main()
