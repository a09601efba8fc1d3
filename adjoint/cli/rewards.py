"""``adjoint rewards``: what an image can be rewarded for."""

from __future__ import annotations

import argparse

from samplers.cli.arguments import Commands, add_command
from samplers.cli.text import aligned


def add_parser(commands: Commands) -> None:
    """Add the command ``rewards``."""
    add_command(commands, "rewards", "list what an image can be rewarded for").set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the table; returns the exit code."""
    from adjoint.options import REQUIRED
    from adjoint.rewards import get_reward, list_rewards

    rows = [("reward", "high if", "options (* must be set)")]
    for kind in map(get_reward, list_rewards()):
        options = [n + "*" * (o.default is REQUIRED) for n, o in kind.options.items()]
        rows.append((kind.name, kind.description, ", ".join(options)))
    print(aligned([*rows, ("package.module:name", "a function of your own says so", "")]))
    return 0
