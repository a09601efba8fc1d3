"""The command ``text2pde``, a file for each of its commands: parse, build, call; no mathematics."""

from text2pde.cli.main import main

__all__ = ["main"]
