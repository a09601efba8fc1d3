"""``adjoint rewards``: the rewards and their options."""

from __future__ import annotations

from samplers.cli.common.program import command
from samplers.cli.common.text import aligned


@command()
def run() -> None:
    """List what images can be rewarded for."""
    from adjoint.rewards import get_reward, list_rewards

    rows = [("reward", "high if", "options (* is required)")]
    for kind in map(get_reward, list_rewards()):
        options = [f"{name}{'*' * field.is_required()}" for name, field in kind.options.items()]
        rows.append((kind.name, kind.description, ", ".join(options)))
    print(aligned([*rows, ("package.module:name", "a custom function says so", "")]))
