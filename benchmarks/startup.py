"""How long commands take to start: CPU seconds of one checkout beside another.

    python benchmarks/startup.py BEFORE AFTER

Both run in turn with the interpreter of this script, several times; the least time counts.
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

COMMANDS = (
    "samplers --help",
    "samplers sample --help",
    "samplers likelihood --help",
    "adjoint --help",
    "text2pde --help",
    "samplers list",
    "samplers sample assets/digits --num-images 1 --steps 1 --output {folder}/one.png",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    checkouts = (arguments.before.resolve(), arguments.after.resolve())
    print(f"{'before':>8} {'after':>8} {'ratio':>6}  command")
    with tempfile.TemporaryDirectory() as folder:
        for command in COMMANDS:
            words = shlex.split(command.format(folder=folder))
            runs = [
                [cpu_seconds(words, checkout) for checkout in checkouts]
                for _ in range(arguments.repeats)
            ]
            before, after = (min(times) for times in zip(*runs, strict=True))
            print(f"{before:8.2f} {after:8.2f} {after / before:6.2f}  {command}", flush=True)


def cpu_seconds(words: list[str], checkout: Path) -> float:
    """User and system time of a command with the packages of a checkout."""
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", *words],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
    )
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    return end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime


if __name__ == "__main__":
    main()
