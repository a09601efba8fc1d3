"""The command ``adjoint``, a file for each of its commands: parse, build, call; no mathematics."""

from adjoint.cli.main import main

__all__ = ["main"]
